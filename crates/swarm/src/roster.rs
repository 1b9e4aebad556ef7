//! Who takes part: names and tokens of the simulated users, packed.
//!
//! A user is named by a prefix and a number. Each has the same number of devices; a **device** is
//! counted through all users, so that device `user * devices + n` is the user's n-th.

/// How simulated users and their devices are called.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: Box<str>,
    device: Box<str>,
    devices_each: u32,
}

impl Names {
    /// The name of a user.
    pub fn user(&self, user: u32) -> String {
        format!("{}{user}", self.prefix)
    }

    /// The number of a user, by name.
    pub fn index(&self, name: &[u8]) -> Option<u32> {
        let digits = name.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The name of a device, without its user's.
    pub fn device(&self, device: u32) -> String {
        match device % self.devices_each {
            0 => self.device.to_string(),
            n => format!("{}{n}", self.device),
        }
    }

    /// Whether a device of its user is called so; allocates nothing.
    pub fn is_device(&self, device: u32, name: &[u8]) -> bool {
        let Some(rest) = name.strip_prefix(self.device.as_bytes()) else {
            return false;
        };
        match device % self.devices_each {
            0 => rest.is_empty(),
            n => rest == itoa::Buffer::new().format(n).as_bytes(),
        }
    }

    /// Whose device this is.
    pub fn user_of(&self, device: u32) -> u32 {
        device / self.devices_each
    }

    /// Devices of each user.
    pub fn devices_each(&self) -> u32 {
        self.devices_each
    }
}

/// Names and tokens of the simulated users.
#[derive(Debug, Clone)]
pub struct Roster {
    names: Names,
    tokens: Vec<Box<str>>,
}

impl Roster {
    /// Users `{prefix}0`, `{prefix}1`, … with a token each, and a device each of the same name.
    pub fn new(
        prefix: impl Into<String>,
        device: impl Into<String>,
        tokens: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            names: Names {
                prefix: prefix.into().into_boxed_str(),
                device: device.into().into_boxed_str(),
                devices_each: 1,
            },
            tokens: tokens.into_iter().map(String::into_boxed_str).collect(),
        }
    }

    /// The same users with so many devices each: `device`, `device1`, `device2`, …
    #[must_use]
    pub fn devices(mut self, devices_each: u32) -> Self {
        self.names.devices_each = devices_each.max(1);
        self
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.tokens.len() * self.names.devices_each as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How they are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The number of a user, by name.
    pub fn index(&self, name: &[u8]) -> Option<u32> {
        self.names.index(name)
    }

    pub(crate) fn put_name(&self, out: &mut Vec<u8>, user: u32) {
        out.extend_from_slice(self.names.prefix.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(user).as_bytes());
    }

    pub(crate) fn put_device(&self, out: &mut Vec<u8>, device: u32) {
        out.extend_from_slice(self.names.device.as_bytes());
        let n = device % self.names.devices_each;
        if n > 0 {
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        }
    }

    pub(crate) fn token(&self, device: u32) -> &str {
        let user = self.names.user_of(device) as usize;
        self.tokens.get(user).map_or("", |token| token)
    }
}
