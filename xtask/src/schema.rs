//! `cargo xtask schema`: the JSON Schemas in `docs/schema`, from the Rust types.
//!
//! One file a frame, `<direction>.<type>.schema.json`. The shapes come from
//! `stonechat_protocol::schema`; this module names them and compares them with
//! what is on disk. It does not describe the meaning of a frame: that is
//! `docs/protocol.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use stonechat_protocol::{Accepted, Bye, ErrorFrame, Message, Pong, Receipt, Welcome};

/// Writes the JSON Schemas of all frames to `docs/schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Write nothing; fail when a file differs from what would be written.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let folder = folder();
    let stale = differences(&folder)?;
    if args.check {
        if !stale.is_empty() {
            bail!(
                "the schemas do not fit the Rust types; run `cargo xtask schema` and commit the result:\n  {}",
                stale.join("\n  ")
            );
        }
        println!("{} schemas fit the Rust types", documents()?.len());
        return Ok(());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let wanted = documents()?;
    for name in present(&folder)? {
        if !wanted.contains_key(&name) {
            let path = folder.join(&name);
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    for (name, text) in &wanted {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    println!("{} schemas, {} changed", wanted.len(), stale.len());
    Ok(())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")
}

/// Names of the schema files in a folder; none when the folder is missing.
fn present(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".schema.json") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// What is missing, different or left over.
fn differences(folder: &Path) -> anyhow::Result<Vec<String>> {
    let wanted = documents()?;
    let mut stale: Vec<String> = present(folder)?
        .into_iter()
        .filter(|name| !wanted.contains_key(name))
        .map(|name| format!("{name}: no such frame any more"))
        .collect();
    for (name, text) in &wanted {
        match std::fs::read_to_string(folder.join(name)) {
            Ok(found) if found == *text => {}
            Ok(_) => stale.push(format!("{name}: differs")),
            Err(error) => stale.push(format!("{name}: {error}")),
        }
    }
    Ok(stale)
}

/// Greatest integer on the wire: beyond it, JSON numbers lose digits in many languages.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// File name and text of every schema.
fn documents() -> anyhow::Result<BTreeMap<String, String>> {
    let mut documents = BTreeMap::new();
    for (direction, kind, schema) in stonechat_protocol::schema::all() {
        let schema = match direction {
            "server" => as_written(kind)?,
            _ => schema,
        };
        let Value::Object(mut object) = schema.to_value() else {
            bail!("the schema of {direction}.{kind} is not an object");
        };
        object.insert(
            "$id".to_owned(),
            format!("urn:stonechat:v1:{direction}:{kind}").into(),
        );
        object.insert("title".to_owned(), format!("{direction} {kind}").into());
        name_type(&mut object, kind)?;
        if direction == "server" {
            absent_is_not_null(&mut object);
        }
        let mut document = Value::Object(object);
        plain_integers(&mut document);
        // Whether a map keeps insertion order depends on what else is in the build.
        document.sort_all_objects();
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        documents.insert(format!("{direction}.{kind}.schema.json"), text);
    }
    Ok(documents)
}

/// The schema of a server frame as the server writes it: a field that is always there is required.
fn as_written(kind: &str) -> anyhow::Result<Schema> {
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    Ok(match kind {
        "welcome" => generator.into_root_schema_for::<Welcome>(),
        "accepted" => generator.into_root_schema_for::<Accepted>(),
        "message" => generator.into_root_schema_for::<Message>(),
        "receipt" => generator.into_root_schema_for::<Receipt>(),
        "error" => generator.into_root_schema_for::<ErrorFrame>(),
        "bye" => generator.into_root_schema_for::<Bye>(),
        "pong" => generator.into_root_schema_for::<Pong>(),
        other => bail!("server frame {other:?} is new: list it here"),
    })
}

/// Adds the `type` field, which the generator leaves out for a tagged struct.
fn name_type(object: &mut Map<String, Value>, kind: &str) -> anyhow::Result<()> {
    let fields = object
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .with_context(|| format!("the properties of {kind} are not an object"))?;
    fields.insert("type".to_owned(), serde_json::json!({ "const": kind }));
    let required = object
        .entry("required")
        .or_insert_with(|| Value::Array(Vec::new()))
        .as_array_mut()
        .with_context(|| format!("the required fields of {kind} are not a list"))?;
    required.retain(|name| name != "type");
    required.insert(0, "type".into());
    Ok(())
}

/// A field the server may leave out is never `null` when it is there.
fn absent_is_not_null(object: &mut Map<String, Value>) {
    let required: Vec<Value> = object
        .get("required")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let Some(fields) = object.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, field) in fields {
        let Some(field) = field.as_object_mut() else {
            continue;
        };
        if required.iter().any(|r| r == name) {
            field.remove("default");
            continue;
        }
        if let Some(Value::Array(types)) = field.get("type") {
            let mut types: Vec<Value> = types.iter().filter(|t| *t != "null").cloned().collect();
            if types.len() == 1 {
                field.insert("type".to_owned(), types.remove(0));
            }
        }
        let only = match field.get("anyOf") {
            Some(Value::Array(choices)) => {
                let mut left = choices.iter().filter(|c| c["type"] != "null");
                left.next().cloned().filter(|_| left.next().is_none())
            }
            _ => None,
        };
        if let Some(Value::Object(only)) = only {
            field.remove("anyOf");
            field.extend(only);
        }
    }
}

/// Replaces the integer formats of Rust, which no standard knows, by bounds.
fn plain_integers(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let rust_format = object
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"));
            if rust_format {
                object.remove("format");
                object.insert("maximum".to_owned(), INTEGER_MAX.into());
            }
            object.values_mut().for_each(plain_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_integers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_on_disk_fit_the_types() {
        let stale = differences(&folder()).unwrap();
        assert!(
            stale.is_empty(),
            "run `cargo xtask schema` and commit the result: {stale:#?}"
        );
    }

    #[test]
    fn drift_is_seen() {
        let folder = std::env::temp_dir().join(format!("stonechat-schema-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in documents().unwrap() {
            std::fs::write(folder.join(name), text).unwrap();
        }
        assert_eq!(differences(&folder).unwrap(), Vec::<String>::new());
        std::fs::write(folder.join("client.send.schema.json"), "{}\n").unwrap();
        std::fs::write(folder.join("client.gone.schema.json"), "{}\n").unwrap();
        std::fs::remove_file(folder.join("server.bye.schema.json")).unwrap();
        let stale = differences(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(stale.len(), 3, "{stale:?}");
    }
}
