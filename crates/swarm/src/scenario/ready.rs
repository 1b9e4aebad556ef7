//! The scenarios that are shipped, embedded.

/// A scenario that is shipped.
#[derive(Debug, Clone, Copy)]
pub struct ReadyScenario {
    /// What it is called.
    pub name: &'static str,
    /// The TOML, which is also the best start for one of your own.
    pub text: &'static str,
}

macro_rules! ready {
    ($($name:literal),* $(,)?) => {
        /// The scenarios that are shipped.
        pub const READY: &[ReadyScenario] = &[$(ReadyScenario {
            name: $name,
            text: include_str!(concat!("../../scenarios/", $name, ".toml")),
        }),*];
    };
}

ready!(
    "idle",
    "pairs",
    "chatter",
    "offline",
    "storm",
    "commute",
    "celebrity",
    "slow-readers",
    "new-year",
    "soak",
);
