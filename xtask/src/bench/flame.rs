//! Stacks as a flame graph: `perf script` text in, folded stacks and one SVG file out.
//!
//! The usual tools for this are not under a licence this repository takes, and the picture is a few
//! rectangles. No scripting in the file: names and shares are tooltips.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1600.0;
const ROW: f64 = 17.0;
/// Narrower boxes are left out, and boxes narrower than this have no text.
const BOX_MIN: f64 = 0.4;
const TEXT_MIN: f64 = 30.0;
const CHARACTER: f64 = 6.6;

/// Samples by stack, outermost frame first.
#[derive(Debug, Default)]
pub(crate) struct Stacks(BTreeMap<Vec<String>, u64>);

impl Stacks {
    /// Reads what `perf script -F comm,ip,sym,dso` prints.
    pub(crate) fn read(script: &str) -> Self {
        let mut stacks = Self::default();
        for sample in script.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else {
                continue;
            };
            let mut stack: Vec<String> = lines.map(frame).collect();
            stack.push(thread.trim().to_owned());
            stack.reverse();
            *stacks.0.entry(stack).or_default() += 1;
        }
        stacks
    }

    /// Samples in all.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// One line a stack, as other tools for flame graphs read it.
    pub(crate) fn folded(&self) -> String {
        let mut text = String::new();
        for (stack, count) in &self.0 {
            let _ = writeln!(text, "{} {count}", stack.join(";"));
        }
        text
    }

    /// The functions in which most time was spent, themselves and not what they called, in percent.
    pub(crate) fn hottest(&self, most: usize) -> Vec<(String, f64)> {
        let mut own: BTreeMap<&str, u64> = BTreeMap::new();
        for (stack, count) in &self.0 {
            if let Some(last) = stack.last() {
                *own.entry(last).or_default() += count;
            }
        }
        let mut own: Vec<(&str, u64)> = own.into_iter().collect();
        own.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let all = self.total().max(1) as f64;
        own.into_iter()
            .take(most)
            .map(|(name, count)| (name.to_owned(), 100.0 * count as f64 / all))
            .collect()
    }

    /// The picture.
    pub(crate) fn svg(&self, title: &str) -> String {
        let mut root = Node::default();
        for (stack, count) in &self.0 {
            root.add(stack, *count);
        }
        let height = (root.depth() as f64 + 3.0) * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"monospace\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fffdf7\"/>\n\
             <text x=\"8\" y=\"14\">{}</text>\n",
            escape(title)
        );
        let scale = WIDTH / root.count.max(1) as f64;
        root.draw("all", 0.0, height - ROW, scale, root.count, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }
}

/// `  ffffffff8123 name+0x12 (file)` becomes `name`; a frame without a name is named by its file.
fn frame(line: &str) -> String {
    let line = line.trim();
    let (_, rest) = line.split_once(' ').unwrap_or(("", line));
    let (symbol, file) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    let file = file.trim_end_matches(')');
    if symbol == "[unknown]" {
        let name = file.rsplit('/').next().unwrap_or(file);
        let name = name.trim_matches(['[', ']']);
        return format!("[{name}]");
    }
    let symbol = symbol.rsplit_once("+0x").map_or(symbol, |(name, _)| name);
    let mut name = symbol.to_owned();
    // The hash at the end of a mangled name says nothing.
    if let Some(at) = name.rfind("::h")
        && name.len() - at == 19
    {
        name.truncate(at);
    }
    if file.starts_with("[kernel") || file == "[guest.kernel.kallsyms]" {
        name.push_str("_[k]");
    }
    name.replace(';', ":")
}

#[derive(Debug, Default)]
struct Node {
    count: u64,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn add(&mut self, stack: &[String], count: u64) {
        self.count += count;
        if let Some((first, rest)) = stack.split_first() {
            self.children
                .entry(first.clone())
                .or_default()
                .add(rest, count);
        }
    }

    fn depth(&self) -> usize {
        1 + self.children.values().map(Self::depth).max().unwrap_or(0)
    }

    fn draw(&self, name: &str, x: f64, y: f64, scale: f64, all: u64, svg: &mut String) {
        let width = self.count as f64 * scale;
        if width < BOX_MIN {
            return;
        }
        let share = 100.0 * self.count as f64 / all.max(1) as f64;
        let _ = write!(
            svg,
            "<g><title>{} {share:.2} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{:.1}\" fill=\"{}\" stroke=\"#fffdf7\" stroke-width=\"0.5\"/>",
            escape(name),
            ROW - 1.0,
            colour(name)
        );
        if width > TEXT_MIN {
            let room = (width / CHARACTER) as usize;
            let short: String = name.chars().take(room).collect();
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 3.0,
                y + 12.0,
                escape(&short)
            );
        }
        svg.push_str("</g>\n");
        let mut x = x;
        for (name, child) in &self.children {
            child.draw(name, x, y - ROW, scale, all, svg);
            x += child.count as f64 * scale;
        }
    }
}

/// The kernel, this project, the rest.
fn colour(name: &str) -> &'static str {
    if name.ends_with("_[k]") {
        "#e8a35c"
    } else if name.contains("stonechat") {
        "#8fbf7f"
    } else {
        "#d9cf9c"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "worker 1\n\
        \t    55d0 inner::<T>::h0123456789abcdef+0x1f (/bin/server)\n\
        \t    55d1 outer+0x2 (/bin/server)\n\n\
        worker 1\n\
        \t    55d0 inner::<T>::h0123456789abcdef+0x2f (/bin/server)\n\
        \t    55d1 outer+0x2 (/bin/server)\n\n\
        io\n\
        \tffff01 tcp_sendmsg+0x7 ([kernel.kallsyms])\n\
        \t    77 [unknown] (/lib/libc.so.6)\n";

    #[test]
    fn samples_are_folded_by_stack() {
        let stacks = Stacks::read(SCRIPT);
        assert_eq!(
            stacks.folded(),
            "io;[libc.so.6];tcp_sendmsg_[k] 1\nworker 1;outer;inner::<T> 2\n"
        );
        assert_eq!(stacks.total(), 3);
        let hottest = stacks.hottest(1);
        assert_eq!(hottest[0].0, "inner::<T>");
        assert!((hottest[0].1 - 200.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn the_picture_has_a_box_for_each_frame_and_is_escaped() {
        let svg = Stacks::read(SCRIPT).svg("a < b");
        assert!(svg.contains("a &lt; b") && svg.contains("inner::&lt;T&gt; 66.67 %"));
        assert_eq!(svg.matches("<rect x=").count(), 7, "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}
