//! The durable store of Stonechat: journal, committer and sled.
