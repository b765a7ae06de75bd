//! A drawing under construction: SVG elements appended to a string, in the order in which they are painted.
//! Every panel writes here, and the finished text is both the SVG file and, its texts [`outlined`], what the rasteriser
//! reads.

use std::collections::HashMap;
use std::fmt::Write;

use super::font;
use crate::shown::shown;

/// Families tried in turn; the first is the embedded one, which a viewer of the SVG file may lack.
const FAMILIES: &str = "Ubuntu, 'Ubuntu Light', 'Helvetica Neue', Arial, sans-serif";

/// Which end of a text its position names.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text, ready to be placed.
#[derive(Clone)]
pub(super) struct Text<'a> {
    content: &'a str,
    size: f64,
    colour: &'a str,
    anchor: Anchor,
    strong: bool,
    upright: bool,
    halo: bool,
}

impl<'a> Text<'a> {
    pub fn new(content: &'a str, size: f64, colour: &'a str) -> Self {
        Self { content, size, colour, anchor: Anchor::Start, strong: false, upright: false, halo: false }
    }

    pub fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// Bold, by an outline of the text's own colour: the embedded font has one weight.
    pub fn strong(self) -> Self {
        Self { strong: true, ..self }
    }

    /// Turned to read from bottom to top.
    pub fn upright(self) -> Self {
        Self { upright: true, ..self }
    }
}

/// A line's look.
#[derive(Clone, Copy)]
pub(super) struct Stroke<'a> {
    pub colour: &'a str,
    pub width: f64,
    /// Lengths of dash and gap.
    pub dash: Option<(f64, f64)>,
}

impl<'a> Stroke<'a> {
    pub fn solid(colour: &'a str, width: f64) -> Self {
        Self { colour, width, dash: None }
    }

    pub fn dashed(colour: &'a str, width: f64) -> Self {
        Self { colour, width, dash: Some((4.5 * width, 3.0 * width)) }
    }

    fn attributes(&self) -> String {
        let mut out = format!(
            r#"stroke="{}" stroke-width="{}" stroke-linejoin="round""#,
            self.colour,
            number(self.width)
        );
        if let Some((dash, gap)) = self.dash {
            push(&mut out, format_args!(r#" stroke-dasharray="{} {}""#, number(dash), number(gap)));
        }
        out
    }
}

/// A rectangle: left, top, width, height in pixels of the drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    fn is_finite(&self) -> bool {
        are_finite([self.left, self.top, self.width, self.height])
    }
}

/// The drawing.
#[derive(Default)]
pub(super) struct Svg {
    body: String,
    clips: usize,
}

impl Svg {
    /// Appends one element or tag.
    fn element(&mut self, element: std::fmt::Arguments) {
        push(&mut self.body, element);
        self.body.push('\n');
    }

    pub fn text(&mut self, x: f64, y: f64, text: &Text) {
        if !are_finite([x, y]) {
            return;
        }
        let Text { size, colour, .. } = *text;
        let anchor = match text.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        // A hair of outline brings the light face to the weight of ordinary text.
        let outline = match text {
            Text { halo: true, .. } => 0.3 * size,
            Text { strong: true, .. } => 0.045 * size,
            _ => 0.014 * size,
        };
        let place = if text.upright {
            format!(r#"transform="translate({} {}) rotate(-90)""#, number(x), number(y))
        } else {
            format!(r#"x="{}" y="{}""#, number(x), number(y))
        };
        self.element(format_args!(
            r#"<text {place} font-size="{}" text-anchor="{anchor}" fill="{colour}" stroke="{colour}" stroke-width="{}">{}</text>"#,
            number(size),
            number(outline),
            escape(text.content)
        ));
    }

    /// Text on a busy ground: a halo of paper lies under it.
    pub fn label(&mut self, x: f64, y: f64, text: &Text) {
        self.element(format_args!(r#"<g opacity="0.85" stroke-linejoin="round">"#));
        let halo = Text { colour: "#ffffff", halo: true, ..text.clone() };
        self.text(x, y, &halo);
        self.element(format_args!("</g>"));
        self.text(x, y, text);
    }

    pub fn rectangle(&mut self, area: Area, fill: &str, stroke: Option<Stroke>) {
        if !area.is_finite() {
            return;
        }
        let stroke = stroke.map_or(String::new(), |stroke| stroke.attributes());
        self.element(format_args!(
            r#"<rect x="{}" y="{}" width="{}" height="{}" fill="{fill}" {stroke}/>"#,
            number(area.left),
            number(area.top),
            number(area.width),
            number(area.height)
        ));
    }

    /// Straight lines between `points`; a point that is not finite ends one stretch and the next begins another.
    pub fn polyline(&mut self, points: impl IntoIterator<Item = (f64, f64)>, stroke: Stroke) {
        let data = path(points);
        if !data.is_empty() {
            self.element(format_args!(r#"<path d="{data}" fill="none" {}/>"#, stroke.attributes()));
        }
    }

    /// The area under `points`, closed by the first and last.
    pub fn polygon(&mut self, points: impl IntoIterator<Item = (f64, f64)>, fill: &str, opacity: f64) {
        // Its corners move in from far outside, so that it stays closed.
        let data = path(points.into_iter().map(|(x, y)| (within_reach(x), within_reach(y))));
        if !data.is_empty() {
            self.element(format_args!(
                r#"<path d="{data}z" fill="{fill}" fill-opacity="{}"/>"#,
                number(opacity)
            ));
        }
    }

    /// Several stretches as one path, so that no seam shows where they touch.
    pub fn polylines(&mut self, stretches: &[Vec<(f64, f64)>], stroke: Stroke) {
        let gap = std::iter::once((f64::NAN, f64::NAN));
        self.polyline(
            stretches.iter().flat_map(|stretch| stretch.iter().copied().chain(gap.clone())),
            stroke,
        );
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        self.polyline([from, to], stroke);
    }

    pub fn circle(&mut self, (x, y): (f64, f64), radius: f64, fill: &str, stroke: Stroke) {
        if !are_finite([x, y, radius]) {
            return;
        }
        let stroke = stroke.attributes();
        self.element(format_args!(
            r#"<circle cx="{}" cy="{}" r="{}" fill="{fill}" {stroke}/>"#,
            number(x),
            number(y),
            number(radius)
        ));
    }

    /// Translucent dots, whose overlaps grow darker.
    ///
    /// Those that do not touch each other are one path, of lines without a length but with round ends: an element for each
    /// dot takes a renderer several times as long, and three times the bytes.
    pub fn dots(&mut self, points: &[(f64, f64)], radius: f64, colour: &str, opacity: f64) {
        let places = points.iter().filter(|&&(x, y)| are_finite([x, y]));
        let places: Vec<(f64, f64)> = places.map(|&(x, y)| (within_reach(x), within_reach(y))).collect();
        self.element(format_args!(
            r#"<g fill="none" stroke="{colour}" stroke-opacity="{}" stroke-width="{}" stroke-linecap="round">"#,
            number(opacity),
            number(2.0 * radius)
        ));
        // A pixel more, for antialiasing and for the decimals that are left out.
        for group in apart(&places, 2.0 * radius + 1.0) {
            let mut data = String::new();
            for (x, y) in group {
                // One decimal moves a dot by less than its own antialiasing.
                push(&mut data, format_args!("M{x:.1} {y:.1}h0"));
            }
            self.element(format_args!(r#"<path d="{data}"/>"#));
        }
        self.element(format_args!("</g>"));
    }

    /// An image stretched over `area`; `href` is a data URI.
    pub fn image(&mut self, area: Area, href: &str) {
        if !area.is_finite() {
            return;
        }
        self.element(format_args!(
            r#"<image x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none" href="{href}"/>"#,
            number(area.left),
            number(area.top),
            number(area.width),
            number(area.height)
        ));
    }

    /// What `paint` draws, cut off at the edges of `area`.
    pub fn clipped(&mut self, area: Area, paint: impl FnOnce(&mut Self)) {
        self.clips += 1;
        let clip = self.clips;
        self.element(format_args!(
            r#"<clipPath id="clip{clip}"><rect x="{}" y="{}" width="{}" height="{}"/></clipPath>"#,
            number(area.left),
            number(area.top),
            number(area.width),
            number(area.height)
        ));
        self.element(format_args!(r##"<g clip-path="url(#clip{clip})">"##));
        paint(self);
        self.element(format_args!("</g>"));
    }

    /// The whole document on white paper.
    pub fn finish(self, width: f64, height: f64, title: &str) -> String {
        let (width, height) = (number(width), number(height));
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FAMILIES}" font-weight="300">
<title>{}</title>
<rect width="{width}" height="{height}" fill="#ffffff"/>
{}</svg>
"##,
            escape(&shown(title).at_most(LONGEST).to_string()),
            self.body
        )
    }
}

/// The finished drawing `svg` with every text as the outlines of its letters, for a rasteriser that knows no fonts.
pub(super) fn outlined(svg: &str) -> String {
    let mut out = String::with_capacity(4 * svg.len());
    for line in svg.lines() {
        match outlined_text(line) {
            Some(path) => out.push_str(&path),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The path in place of a line that [`Svg::text`] wrote; `None` where it wrote another element.
fn outlined_text(line: &str) -> Option<String> {
    let (attributes, rest) = line.strip_prefix("<text ")?.split_once('>')?;
    let (content, _) = rest.split_once("</text>")?;
    let attribute = |name: &str| {
        let (_, rest) = attributes.split_once(&format!(r#"{name}=""#))?;
        Some(rest.split_once('"')?.0)
    };
    let place = match attribute("transform") {
        Some(transform) => transform.to_owned(),
        None => format!("translate({} {})", attribute("x")?, attribute("y")?),
    };
    let size: f64 = attribute("font-size")?.parse().ok()?;
    let content = content.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let start = match attribute("text-anchor")? {
        "start" => 0.0,
        "middle" => -0.5 * font::width(&content, size),
        _ => -font::width(&content, size),
    };
    Some(format!(
        r#"<path transform="{place} translate({start:.3} 0)" d="{}" fill="{}" stroke="{}" stroke-width="{}"/>"#,
        font::outlines(&content, size),
        attribute("fill")?,
        attribute("stroke")?,
        attribute("stroke-width")?
    ))
}

/// Most characters of a text.
const LONGEST: usize = 400;

/// `content` on one line, cut to `width` pixels at font size `size`, with an ellipsis where something was cut.
pub(super) fn fit(content: &str, size: f64, width: f64) -> String {
    // Long before any picture's edge.
    let content = shown(content).at_most(LONGEST).to_string();
    if font::width(&content, size) <= width {
        return content;
    }
    let mut kept: Vec<char> = content.chars().collect();
    while kept.pop().is_some() {
        let shorter: String = kept.iter().collect::<String>().trim_end().to_owned() + "…";
        if font::width(&shorter, size) <= width {
            return shorter;
        }
    }
    String::new()
}

/// Whether a place can be drawn at. What has none is left out; [`path`] lifts the pen there.
fn are_finite<const N: usize>(numbers: [f64; N]) -> bool {
    numbers.iter().all(|number| number.is_finite())
}

/// How far from the origin anything is drawn. Every drawing fits into it, and at the largest scale of a PNG, 10.24, the
/// rasteriser's fixed-point arithmetic still has bits for it. Beyond, it panics, and again in a destructor on the way out,
/// which ends the process even where the first would be caught.
const REACH: f64 = 3200.0;

/// `value`, no further than [`REACH`] from 0.
fn within_reach(value: f64) -> f64 {
    value.clamp(-REACH, REACH)
}

/// `points` in groups, in each of which any two are at least `distance` apart: each point in the first group that has room
/// for it.
fn apart(points: &[(f64, f64)], distance: f64) -> Vec<Vec<(f64, f64)>> {
    let mut groups: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut group_of: Vec<usize> = Vec::with_capacity(points.len());
    // Of each group the last point that it has no room for.
    let mut refused: Vec<Option<usize>> = Vec::new();
    // Numbers of the points before, by squares of side `distance`.
    let mut placed: HashMap<(i64, i64), Vec<usize>> = HashMap::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        let (column, row) = ((x / distance).floor() as i64, (y / distance).floor() as i64);
        let squares =
            (column - 1..=column + 1).flat_map(|column| (row - 1..=row + 1).map(move |row| (column, row)));
        for &other in squares.filter_map(|square| placed.get(&square)).flatten() {
            if (x - points[other].0).hypot(y - points[other].1) < distance {
                refused[group_of[other]] = Some(index);
            }
        }
        let group = refused.iter().position(|&last| last != Some(index)).unwrap_or(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
            refused.push(None);
        }
        groups[group].push((x, y));
        group_of.push(group);
        placed.entry((column, row)).or_default().push(index);
    }
    groups
}

/// A finite coordinate with at most two decimals.
fn number(value: f64) -> String {
    let text = format!("{:.2}", within_reach(value));
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Path data through `points`, cut off where it leaves [`REACH`]; see [`Svg::polyline`].
fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut data = String::new();
    let mut put = |command, (x, y)| push(&mut data, format_args!("{command}{} {}", number(x), number(y)));
    let mut last = None;
    for point in points {
        if !are_finite([point.0, point.1]) {
            last = None;
            continue;
        }
        // So near that a difference of two such numbers still has the digits of a pixel.
        let point = (point.0.clamp(-1e9, 1e9), point.1.clamp(-1e9, 1e9));
        match last.replace(point) {
            None if point.0.abs().max(point.1.abs()) <= REACH => put('M', point),
            None => (),
            Some(before) => {
                if let Some((from, to)) = part_within_reach(before, point) {
                    // Else the pen is there already.
                    if from != before {
                        put('M', from);
                    }
                    put('L', to);
                }
            }
        }
    }
    data
}

/// The part of the line from `a` to `b` that lies within [`REACH`].
///
/// Liang and Barsky, "A new concept and method for line clipping", ACM Transactions on Graphics 3, 1984.
fn part_within_reach(a: (f64, f64), b: (f64, f64)) -> Option<((f64, f64), (f64, f64))> {
    let (mut from, mut to) = (0.0f64, 1.0f64);
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    for (start, step) in [(a.0, dx), (-a.0, -dx), (a.1, dy), (-a.1, -dy)] {
        let room = REACH - start;
        if step > 0.0 {
            to = to.min(room / step);
        } else if step < 0.0 {
            from = from.max(room / step);
        } else if room < 0.0 {
            return None;
        }
    }
    let at = |part: f64| (a.0 + part * dx, a.1 + part * dy);
    let ends = (if from > 0.0 { at(from) } else { a }, if to < 1.0 { at(to) } else { b });
    (from < to).then_some(ends)
}

fn push(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("invariant: a string accepts every write");
}

/// Text as XML content. Control characters, which XML cannot hold at all, become spaces.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_zero_has_no_sign() {
        assert_eq!(
            [3.0, 2.50, -0.001, 1.0 / 3.0, 100.0].map(number),
            ["3", "2.5", "0", "0.33", "100"].map(str::to_owned)
        );
    }

    #[test]
    fn texts_are_outlined_where_they_stand_and_nothing_else_changes() {
        let mut svg = Svg::default();
        svg.text(10.0, 20.0, &Text::new("a < b", 20.0, "#123456").anchor(Anchor::End).strong());
        svg.text(30.0, 40.0, &Text::new("up", 20.0, "#000").upright());
        svg.rectangle(Area { left: 1.0, top: 2.0, width: 3.0, height: 4.0 }, "#fff", None);
        let drawing = svg.finish(100.0, 50.0, "title");
        let changed = outlined(&drawing);
        let lines: Vec<(&str, &str)> = drawing.lines().zip(changed.lines()).collect();
        assert_eq!(drawing.lines().count(), changed.lines().count());
        let texts: Vec<&str> =
            lines.iter().filter(|(line, _)| line.starts_with("<text")).map(|(_, path)| *path).collect();
        assert_eq!(texts.len(), 2);
        assert!(lines.iter().all(|(line, path)| line == path || line.starts_with("<text")), "{changed}");
        let end =
            format!(r#"<path transform="translate(10 20) translate({:.3} 0)""#, -font::width("a < b", 20.0));
        assert!(texts[0].starts_with(&end), "{}", texts[0]);
        assert!(
            texts[0].ends_with(r##"fill="#123456" stroke="#123456" stroke-width="0.9"/>"##),
            "{}",
            texts[0]
        );
        assert!(texts[0].contains(&font::outlines("a < b", 20.0)));
        let upright = r#"<path transform="translate(30 40) rotate(-90) translate(0.000 0)""#;
        assert!(texts[1].starts_with(upright), "{}", texts[1]);
    }

    #[test]
    fn no_number_is_beyond_the_rasteriser() {
        assert_eq!([1e300, -1e9].map(number), ["3200", "-3200"].map(str::to_owned));
        let mut svg = Svg::default();
        let (stroke, area) =
            (Stroke::dashed("#000", 1.0), Area { left: 0.0, top: 0.0, width: 1.0, height: 1.0 });
        svg.line((f64::NAN, 0.0), (1.0, f64::INFINITY), stroke);
        svg.circle((0.0, f64::NAN), 1.0, "none", stroke);
        svg.text(f64::NAN, 0.0, &Text::new("text", 1.0, "#000"));
        svg.rectangle(Area { height: f64::INFINITY, ..area }, "none", None);
        svg.image(Area { left: f64::NAN, ..area }, "");
        assert_eq!(svg.body, "");
        svg.dots(&[(f64::NAN, 0.0), (1e9, -1e300)], 1.0, "#000", 1.0);
        assert!(svg.body.contains("M3200.0 -3200.0h0") && !svg.body.contains("NaN"), "{}", svg.body);
    }

    #[test]
    fn lines_end_where_they_leave_the_reach_and_keep_their_slope() {
        // Up by twice as much as to the right.
        assert_eq!(path([(0.0, 0.0), (1e8, 2e8), (2e8, 0.0), (0.0, 0.0)]), "M0 0L1600 3200M3200 0L0 0");
        assert_eq!(path([(-1e9, 1.0), (1e9, 1.0)]), "M-3200 1L3200 1");
        assert_eq!(path([(5000.0, 1.0), (5000.0, 2.0), (6000.0, f64::NAN), (9e9, 9e9)]), "");
        assert_eq!(
            path([(0.0, 0.0), (0.0, 1e300), (1.0, 1e300), (1.0, 0.0), (2.0, 0.0)]),
            "M0 0L0 3200M1 3200L1 0L2 0"
        );
    }

    #[test]
    fn dots_of_a_path_do_not_touch_and_none_is_lost() {
        let mut points: Vec<(f64, f64)> =
            (0..400).map(|i| (f64::from(i * 37 % 101), f64::from(i * 53 % 89))).collect();
        points.extend([(50.0, 50.0); 5]);
        let groups = apart(&points, 6.0);
        let far = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).hypot(a.1 - b.1) >= 6.0;
        for group in &groups {
            assert!((1..group.len()).all(|i| group[..i].iter().all(|other| far(other, &group[i]))));
        }
        let mut drawn = groups.concat();
        for points in [&mut drawn, &mut points] {
            points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        }
        assert_eq!(drawn, points);
        assert!((6..60).contains(&groups.len()), "{}", groups.len());
        assert_eq!(
            apart(&[(0.0, 0.0), (6.0, 0.0), (3.0, 0.0)], 6.0),
            [vec![(0.0, 0.0), (6.0, 0.0)], vec![(3.0, 0.0)]]
        );
    }

    #[test]
    fn a_gap_in_the_points_lifts_the_pen() {
        assert_eq!(path([(0.0, 1.0), (2.0, 3.0), (f64::NAN, 0.0), (4.0, 5.0)]), "M0 1L2 3M4 5");
    }

    #[test]
    fn text_that_xml_cannot_hold_is_made_harmless() {
        assert_eq!(escape("a<b & c>\u{1}\u{ffff}d"), "a&lt;b &amp; c&gt;  d");
    }

    #[test]
    fn long_text_is_cut_with_an_ellipsis() {
        let endless = fit(&"\u{1b}[2J\u{202e}".repeat(30_000), 20.0, 200.0);
        assert!(endless.starts_with("\\u{1b}[2J\\u{202e}") && endless.ends_with('…'), "{endless}");
        assert_eq!(fit("short", 20.0, 200.0), "short");
        let cut = fit(&"long ".repeat(50), 20.0, 200.0);
        assert!(cut.ends_with('…') && font::width(&cut, 20.0) <= 200.0, "{cut}");
        assert_eq!(fit("anything", 20.0, 0.0), "");
    }
}
