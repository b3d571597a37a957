//! A token as a QR code: its modules, in SVG and in PNG.

use qrcode::render::svg;
use qrcode::{Color, EcLevel, QrCode};

/// Pixels a module, and the quiet zone of ISO/IEC 18004 around the code, in modules.
const SCALE: usize = 6;
const QUIET: usize = 4;

fn code(token: &str) -> anyhow::Result<QrCode> {
    Ok(QrCode::with_error_correction_level(token, EcLevel::M)?)
}

pub fn svg(token: &str) -> anyhow::Result<String> {
    Ok(code(token)?.render::<svg::Color<'_>>().min_dimensions(256, 256).quiet_zone(true).build())
}

/// Row by row, dark or not, without the quiet zone.
pub fn modules(token: &str) -> anyhow::Result<Vec<Vec<bool>>> {
    let code = code(token)?;
    let rows = code.to_colors();
    Ok(rows.chunks(code.width()).map(|row| row.iter().map(|c| *c == Color::Dark).collect()).collect())
}

pub fn png(token: &str) -> anyhow::Result<Vec<u8>> {
    let modules = modules(token)?;
    let side = (modules.len() + 2 * QUIET) * SCALE;
    let mut pixels = vec![255; side * side];
    for (row, dark) in modules.iter().enumerate() {
        for (column, _) in dark.iter().enumerate().filter(|(_, dark)| **dark) {
            let (x, y) = ((column + QUIET) * SCALE, (row + QUIET) * SCALE);
            for line in y..y + SCALE {
                pixels[line * side + x..line * side + x + SCALE].fill(0);
            }
        }
    }
    let mut image = Vec::new();
    let edge = u32::try_from(side)?;
    let mut encoder = png::Encoder::new(&mut image, edge, edge);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_forms_are_whole() {
        let svg = super::svg("token").unwrap();
        assert!(svg.contains("<svg") && svg.contains("</svg>"));
        let png = super::png("token").unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(frame.width, frame.height);
        assert!(pixels.contains(&0) && pixels.contains(&255));
    }
}
