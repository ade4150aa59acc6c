//! A picture as a customer's phone might send it, drawn here: a house whose roof has lost tiles.

/// Width and height in pixels.
const SIZE: (u16, u16) = (320, 200);
/// Red, green and blue of the sixteen colours.
const COLOURS: [[u8; 3]; 16] = [
    [112, 168, 216],
    [140, 188, 226],
    [172, 206, 234],
    [204, 224, 240],
    [236, 236, 232],
    [112, 128, 140],
    [176, 72, 48],
    [150, 58, 40],
    [52, 40, 36],
    [236, 222, 190],
    [212, 196, 160],
    [96, 140, 72],
    [76, 118, 58],
    [120, 84, 52],
    [84, 124, 160],
    [248, 248, 244],
];

/// The picture as PNG (W3C, Portable Network Graphics, second edition), with four bits a pixel.
pub(super) fn roof() -> Vec<u8> {
    let (width, height) = SIZE;
    let mut pixels = Vec::new();
    for y in 0..height {
        // No filter for this line.
        pixels.push(0);
        pixels.extend((0..width / 2).map(|half| colour(half * 2, y) << 4 | colour(half * 2 + 1, y)));
    }
    let mut header = Vec::new();
    header.extend(u32::from(width).to_be_bytes());
    header.extend(u32::from(height).to_be_bytes());
    // Four bits, palette; the only compression and filter methods there are; not interlaced.
    header.extend([4, 3, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut png, *b"IHDR", &header);
    chunk(&mut png, *b"PLTE", COLOURS.as_flattened());
    chunk(&mut png, *b"IDAT", &stored(&pixels));
    chunk(&mut png, *b"IEND", &[]);
    png
}

/// The colour of a pixel, as its number.
fn colour(x: u16, y: u16) -> u8 {
    let (x, y) = (i32::from(x), i32::from(y));
    let within = |left: i32, top: i32, right: i32, bottom: i32| {
        (left..right).contains(&x) && (top..bottom).contains(&y)
    };
    // The roof: its ridge at (160, 36), its eaves 130 to each side, 74 below.
    let roof = (36..110).contains(&y) && (x - 160).abs() * 74 <= (y - 36) * 130;
    // Where tiles are gone, with a ragged edge.
    let ragged = (x * 7 + y * 13) % 11;
    let hole = (x - 196).pow(2) * 4 + (y - 82).pow(2) * 9 < 3600 + ragged * 90;
    if roof && hole {
        return if (x + y) % 24 < 4 { 13 } else { 8 };
    }
    if roof {
        let joint = y % 9 == 0 || (x + y / 9 % 2 * 8) % 16 == 0;
        return if joint { 7 } else { 6 };
    }
    if within(226, 44, 244, 90) {
        return 5;
    }
    if within(52, 110, 268, 172) {
        if within(146, 124, 176, 172) {
            return 13;
        }
        let window = within(76, 122, 116, 152) || within(206, 122, 246, 152);
        if window {
            let frame = (x - 76) % 130 % 20 < 2 || (y - 122) % 15 < 2;
            return if frame { 15 } else { 14 };
        }
        return if y % 12 == 0 { 10 } else { 9 };
    }
    // Tiles in the grass.
    if within(272, 176, 286, 180) || within(290, 184, 306, 188) {
        return 6;
    }
    if y >= 172 {
        return if (x * 5 + y * 3) % 7 < 2 { 12 } else { 11 };
    }
    // The sky, lighter towards the ground.
    match y {
        0..44 => 0,
        44..88 => 1,
        88..132 => 2,
        _ => 3,
    }
}

/// Appends a chunk: length, name, content, CRC (section 5.3).
fn chunk(png: &mut Vec<u8>, name: [u8; 4], content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    png.extend(length.to_be_bytes());
    png.extend(name);
    png.extend(content);
    png.extend(crc(name.iter().chain(content)).to_be_bytes());
}

/// zlib without compression (RFC 1950, RFC 1951 section 3.2.4).
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler(bytes).to_be_bytes());
    out
}

/// CRC-32 as in PNG, annex D.
fn crc<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    };
    !bytes.fold(!0, step)
}

/// Adler-32 (RFC 1950, section 8.2).
fn adler(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_those_of_the_standards() {
        assert_eq!(crc(b"123456789".iter()), 0xcbf4_3926);
        assert_eq!(crc(b"IEND".iter()), 0xae42_6082);
        assert_eq!(adler(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn the_picture_is_small_and_whole() {
        let png = roof();
        assert!((10_000..60_000).contains(&png.len()), "{}", png.len());
        assert!(png.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
    }
}
