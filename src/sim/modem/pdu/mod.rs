//! What goes over the air, in the simulator's own reading of 3GPP TS 23.040: it shares nothing with the product's codec,
//! so that a mistake there is not made here as well.

pub(crate) mod gsm7;
mod make;
mod read;
#[cfg(test)]
mod tests;

pub use make::{Report, Text};
pub use read::{Body, Part, PduError, Submit, read_submit};

pub(crate) use make::{address, hex, is_international};
pub(crate) use read::{Deliver, head, read_deliver, read_report, unhex};

/// Joins the parts of one message, in their order, before anything is decoded: a character may be cut in two.
/// `None` for data that is no text.
#[must_use]
pub fn join(parts: &[&Body]) -> Option<String> {
    let mut text = String::new();
    let mut rest = parts;
    while let Some((first, others)) = rest.split_first() {
        match first {
            Body::Septets { septets, tables } => {
                let mut all = septets.clone();
                let mut taken = 0;
                for other in others {
                    let Body::Septets {
                        septets,
                        tables: same,
                    } = other
                    else {
                        break;
                    };
                    if same != tables {
                        break;
                    }
                    all.extend(septets);
                    taken += 1;
                }
                text.push_str(&gsm7::decode(&all, *tables)?);
                rest = others.get(taken..)?;
            }
            Body::Units(units) => {
                let mut all = units.clone();
                let mut taken = 0;
                for other in others {
                    let Body::Units(units) = other else { break };
                    all.extend(units);
                    taken += 1;
                }
                text.push_str(&String::from_utf16_lossy(&all));
                rest = others.get(taken..)?;
            }
            Body::Octets(_) => return None,
        }
    }
    Some(text)
}
