//! MQTT devices through a broker (rumqttc).
