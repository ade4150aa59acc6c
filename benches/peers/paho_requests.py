#!/usr/bin/env python3
"""What one would write by hand in Python: paho-mqtt and requests, one message after the other.

QoS 1, persistent session, acknowledged after the POST, which goes over one kept connection. A POST that fails ends
the program with the message not acknowledged: whoever looks after it starts it again, and the broker sends it again.
benches/end-to-end and benches/peers/run measure it.
"""

import json
import sys
import time


def loop(port, url, ca, conversations, session, topic, count=0):
    """`conversations`: by number, what the gateway has made known at the sandbox; `count`: after how many to end."""
    import paho.mqtt.client as mqtt
    import requests

    http = requests.Session()
    # Else the environment decides on the certificates, and is read for every request.
    http.trust_env = False
    http.verify = ca
    http.headers["Authorization"] = "Bearer sandbox-token"
    done = 0

    def on_message(client, _, message):
        nonlocal done
        sms = json.loads(message.payload)
        conversation, sender = conversations[sms["number"]]
        answer = http.post(f"{url}/api/v1/channels/messages/receive", json={
            "id": f"loop-{message.mid}-{time.monotonic_ns()}", "channel_id": "gw-bench-sms", "sender_id": sender,
            "conversation_id": conversation, "message": sms["text"], "status": "sent",
            "created_at": sms["datetime"].replace(" ", "T") + ".000Z", "attachments": [],
        })
        answer.raise_for_status()
        client.ack(message.mid, message.qos)
        done += 1
        if done == count:
            client.disconnect()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, session, clean_session=False, manual_ack=True)
    client.on_connect = lambda client, *_: client.subscribe(topic, 1)
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    port, url, ca, conversations, session, topic, count = sys.argv[1:]
    with open(conversations, encoding="utf-8") as file:
        known = json.load(file)
    loop(int(port), url, ca, known, session, topic, int(count))
