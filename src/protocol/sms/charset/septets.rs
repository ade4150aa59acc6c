//! Septets packed into octets: 3GPP TS 23.038, section 6.1.2.1.

/// Octets that `septets` septets need.
#[must_use]
pub const fn packed_len(septets: usize) -> usize {
    (septets * 7).div_ceil(8)
}

/// The first `count` septets, one per octet; fewer when there are not so many octets.
#[must_use]
pub fn unpack(octets: &[u8], count: usize) -> Vec<u8> {
    let count = count.min(octets.len() * 8 / 7);
    let mut septets = Vec::with_capacity(count);
    let (mut held, mut bits) = (0_u16, 0_u32);
    for octet in octets {
        held |= u16::from(*octet) << bits;
        bits += 8;
        while bits >= 7 && septets.len() < count {
            septets.push(low_septet(held));
            held >>= 7;
            bits -= 7;
        }
        if septets.len() == count {
            break;
        }
    }
    septets
}

const fn low_septet(held: u16) -> u8 {
    held.to_le_bytes()[0] & 0x7f
}

/// Appends septets to `octets`, which already hold a header: the first septet starts at the next septet boundary
/// (3GPP TS 23.040, 9.2.3.24). Gives the length of everything in septets.
pub fn pack_after(octets: &mut Vec<u8>, septets: &[u8]) -> usize {
    let header = (octets.len() * 8).div_ceil(7);
    let fill = header * 7 - octets.len() * 8;
    let mut held = 0_u16;
    let mut bits = fill;
    for septet in septets {
        held |= u16::from(septet & 0x7f) << bits;
        bits += 7;
        if bits >= 8 {
            octets.push(held.to_le_bytes()[0]);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        octets.push(held.to_le_bytes()[0]);
    }
    header + septets.len()
}
