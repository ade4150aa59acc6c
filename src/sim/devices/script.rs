//! Who writes what, and when.

use std::time::Duration;

use super::{Device, picture};

/// One message of a customer.
#[derive(Clone, Debug)]
pub struct Text {
    /// Time after the start.
    pub after: Duration,
    /// What it says.
    pub text: String,
    /// What comes along, with [`Device::Mms`] only.
    pub files: Vec<File>,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self {
            after: Duration::ZERO,
            text,
            files: Vec::new(),
        }
    }
}

/// A file of a message.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: String,
    /// MIME type that the device claims.
    pub mime: String,
    /// Content.
    pub bytes: Vec<u8>,
}

impl File {
    fn new(name: &str, mime: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.to_owned(),
            mime: mime.to_owned(),
            bytes: bytes.into(),
        }
    }
}

/// A customer's card, as phones send it.
const CARD: &str = "BEGIN:VCARD\r\nVERSION:3.0\r\nN:Nair;Priya;;;\r\nFN:Priya Nair\r\nTEL;TYPE=CELL:+447700900288\r\n\
                    EMAIL:priya@example.com\r\nEND:VCARD\r\n";

/// A customer with a phone.
#[derive(Clone, Debug)]
pub struct Customer {
    /// For the log; the devices do not know it.
    pub name: String,
    /// In E.164.
    pub number: String,
    /// The device the customer's messages arrive at.
    pub device: Device,
    /// What the customer writes unasked.
    pub texts: Vec<Text>,
    /// What the customer answers to the agent's first, second, … message. After the last one the customer is content
    /// and silent.
    pub answers: Vec<String>,
}

/// What the devices play.
#[derive(Clone, Debug)]
pub struct Script {
    /// The customers of all devices.
    pub customers: Vec<Customer>,
    /// From an agent's message to the device's confirmation.
    pub confirm_after: Duration,
    /// From the confirmation to the customer's answer.
    pub answer_after: Duration,
}

impl Script {
    /// The demo's customers. Their numbers are from ranges that the authorities keep for films and documentation.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            customers: vec![
                with_pictures(),
                customer(
                    "Emma Clarke",
                    "+447700900142",
                    Device::Sms2mqtt,
                    &[
                        (0, "Hi! Is the oak table from your window still available? 🙂"),
                        (9_000, "I could come by on Saturday with the van."),
                    ],
                    &[
                        "Brilliant, thank you! See you then 👍",
                        "One more thing: do you take cards?",
                        "Perfect.",
                    ],
                ),
                customer(
                    "Jürgen Köhler",
                    "+491713920017",
                    Device::Gsm2mqtt,
                    &[
                        (
                            300,
                            "Grüß Gott, könnten Sie mir das Angebot für die Wärmepumpe noch einmal schicken?",
                        ),
                        (
                            14_000,
                            "Noch eine Frage zur Montage: Unser Heizungsraum liegt im Keller, die Tür ist nur 78 cm \
                             breit und die Treppe macht auf halber Höhe eine enge Kurve. Passt das Gerät da durch, \
                             oder muss es über den Lichtschacht hinunter? Im Straßenbereich dürfen wir höchstens \
                             eine Stunde stehen, größere Fahrzeuge brauchen eine Genehmigung von der Gemeinde. \
                             Schöne Grüße aus Fürstenfeldbruck, J. Köhler",
                        ),
                    ],
                    &[
                        "Das ging ja schnell, besten Dank! 😊",
                        "Passt, dann machen wir es so.",
                    ],
                ),
                customer(
                    "Amélie Laurent",
                    "+33639981234",
                    Device::Sms2mqtt,
                    &[(
                        1_800,
                        "Bonjour, ma commande n'est pas encore arrivée. Où est-elle ? 📦",
                    )],
                    &["Merci beaucoup, ça me rassure !", "Très bien, bonne journée ☀️"],
                ),
                customer(
                    "Astrid Lindqvist",
                    "+46701740612",
                    Device::Gsm2mqtt,
                    &[(
                        3_500,
                        "Hej! Kan vi flytta mötet till torsdag? Jag är på väg till fjällen 🎿",
                    )],
                    &["Toppen, då ses vi!", "Tack så mycket 💛"],
                ),
                customer(
                    "Miguel Ortega",
                    "+12025550143",
                    Device::Sms2mqtt,
                    &[(
                        6_000,
                        "¿Hacen envíos a Nuevo México? Necesito 12 sillas para mañana 😅",
                    )],
                    &["¡Genial! Las pido ahora mismo.", "Gracias 🙏"],
                ),
                customer(
                    "Yui Tanaka",
                    "+447700900377",
                    Device::Gsm2mqtt,
                    &[(11_000, "こんにちは。日本語のカタログはありますか？🗾")],
                    &[
                        "ありがとうございます！とても助かります。",
                        "👨‍👩‍👧‍👦 みんなで伺います。",
                    ],
                ),
            ],
            confirm_after: Duration::from_millis(700),
            answer_after: Duration::from_millis(2_500),
        }
    }
}

fn customer(name: &str, number: &str, device: Device, texts: &[(u64, &str)], answers: &[&str]) -> Customer {
    Customer {
        name: name.to_owned(),
        number: number.to_owned(),
        device,
        texts: texts
            .iter()
            .map(|&(millis, text)| Text {
                after: Duration::from_millis(millis),
                ..Text::from(text.to_owned())
            })
            .collect(),
        answers: answers.iter().map(|&answer| answer.to_owned()).collect(),
    }
}

/// Who sends a picture, and then another kind of file.
fn with_pictures() -> Customer {
    let mut priya = customer(
        "Priya Nair",
        "+447700900288",
        Device::Mms,
        &[
            (
                800,
                "The storm took some tiles off. Can you come and look at the roof?",
            ),
            (8_000, "My details, for the invoice."),
        ],
        &["Great, I will be at home.", "Thank you!"],
    );
    let files = [
        File::new("roof.png", "image/png", picture::roof()),
        File::new("Priya Nair.vcf", "text/x-vcard", CARD),
    ];
    for (text, file) in priya.texts.iter_mut().zip(files) {
        text.files.push(file);
    }
    priya
}
