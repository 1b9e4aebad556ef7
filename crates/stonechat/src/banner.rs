//! What a person sees when the server has started: where it listens, where data
//! is, and how to send a first message. Text only.

use std::fmt::Write;
use std::path::Path;

use crate::cli::ConfigArgs;
use crate::config::Settings;
use crate::node_file::NodeFile;

/// The text. `program`: how this program was called, so that the commands can be copied.
pub(crate) fn banner(
    program: &str,
    args: &ConfigArgs,
    settings: &Settings,
    node: &NodeFile,
) -> String {
    let data_dir = settings.data_dir();
    let program = quoted(program);
    let flags = flags(args);
    let mut text = format!(
        "\nStonechat {version} is running.\n\n  \
           clients connect to  {url}/v1/ws\n  \
           admin API           {admin}  (secret in {secret})\n  \
           data                {data}\n",
        version = env!("CARGO_PKG_VERSION"),
        url = node.client_url(),
        admin = node.admin_url(),
        secret = data_dir
            .join(stonechat_gateway::admin::SECRET_FILE)
            .display(),
        data = data_dir.display(),
    );
    if settings.admin.fault_injection {
        text.push_str("\n  Fault injection is open: this is a node for tests.\n");
    }
    write!(
        text,
        "\nSend a first message from two other terminals:\n\n  \
           {program} chat{flags} --as alice --to bob\n  \
           {program} chat{flags} --as bob --to alice\n\n\
         Ctrl-C stops the server; nothing accepted is lost.\n"
    )
    .expect("writing to a string cannot fail");
    text
}

/// The flags a local command needs in order to find the same node.
fn flags(args: &ConfigArgs) -> String {
    let mut flags = String::new();
    let mut add = |name: &str, value: &Path| {
        flags.push_str(&format!(" {name} {}", quoted(&value.to_string_lossy())));
    };
    if let Some(file) = &args.config {
        add("--config", file);
    }
    if let Some(dir) = &args.data_dir {
        add("--data-dir", dir);
    }
    flags
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_can_be_copied() {
        let args = ConfigArgs {
            data_dir: Some("my data".into()),
            ..ConfigArgs::default()
        };
        let settings = args.load(Vec::new()).unwrap().settings;
        let node = NodeFile {
            pid: 1,
            listen: "127.0.0.1:8080".parse().unwrap(),
            admin_listen: "127.0.0.1:8081".parse().unwrap(),
            tls: false,
            admin_tls: false,
        };
        let text = banner("target/debug/stonechat", &args, &settings, &node);
        assert!(
            text.contains(
                "  target/debug/stonechat chat --data-dir 'my data' --as alice --to bob\n"
            ),
            "{text}"
        );
        assert!(text.contains("ws://127.0.0.1:8080/v1/ws"), "{text}");
        assert!(!text.contains("Fault injection"), "{text}");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
