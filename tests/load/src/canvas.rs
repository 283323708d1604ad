//! Lines, discs and text on a grid of pixels. Owns the pixels; must never know what they show. Read the png crate next.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use font8x8::legacy::BASIC_LEGACY;

pub type Color = [u8; 3];

pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    /// A white canvas.
    pub fn new(width: usize, height: usize) -> Canvas {
        Canvas { width, height, pixels: vec![255; width * height * 3] }
    }

    /// Sets a pixel; nothing outside of the canvas.
    fn dot(&mut self, x: i32, y: i32, color: Color) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&color);
        }
    }

    pub fn disc(&mut self, x: i32, y: i32, radius: i32, color: Color) {
        for dy in -radius..=radius {
            for dx in -radius..=radius {
                if dx * dx + dy * dy <= radius * radius {
                    self.dot(x + dx, y + dy, color);
                }
            }
        }
    }

    pub fn line(&mut self, from: (i32, i32), to: (i32, i32), width: i32, color: Color) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).max(1);
        for step in 0..=steps {
            let x = from.0 + (to.0 - from.0) * step / steps;
            let y = from.1 + (to.1 - from.1) * step / steps;
            if width == 1 { self.dot(x, y, color) } else { self.disc(x, y, width / 2, color) }
        }
    }

    /// Draws a text with its upper left corner at a point; each character is eight pixels wide and high, times `size`.
    pub fn text(&mut self, x: i32, y: i32, size: i32, color: Color, text: &str) {
        for (place, character) in text.chars().enumerate() {
            let glyph = BASIC_LEGACY.get(character as usize).unwrap_or(&BASIC_LEGACY['?' as usize]);
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..8).filter(|column| bits >> column & 1 != 0) {
                    let (left, top) = (x + size * (8 * place as i32 + column), y + size * row as i32);
                    (0..size * size).for_each(|dot| self.dot(left + dot % size, top + dot / size, color));
                }
            }
        }
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let mut encoder = png::Encoder::new(BufWriter::new(file), self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&self.pixels)?;
        Ok(())
    }
}
