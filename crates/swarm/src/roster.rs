//! Who takes part: names and tokens of the simulated users, packed.

/// Names and tokens of the simulated users. A user is named by a prefix and a number.
#[derive(Debug, Clone)]
pub struct Roster {
    prefix: String,
    device: String,
    tokens: Vec<Box<str>>,
}

impl Roster {
    /// Users `{prefix}0`, `{prefix}1`, … with a token each; all sign in with the same device name.
    pub fn new(
        prefix: impl Into<String>,
        device: impl Into<String>,
        tokens: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            prefix: prefix.into(),
            device: device.into(),
            tokens: tokens.into_iter().map(String::into_boxed_str).collect(),
        }
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The name of a user.
    pub fn name(&self, user: u32) -> String {
        format!("{}{user}", self.prefix)
    }

    /// The place of a user in this roster, by name.
    pub fn index(&self, name: &[u8]) -> Option<u32> {
        let digits = name.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    pub(crate) fn put_name(&self, out: &mut Vec<u8>, user: u32) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(user).as_bytes());
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    pub(crate) fn token(&self, user: u32) -> &str {
        self.tokens.get(user as usize).map_or("", |token| token)
    }
}
