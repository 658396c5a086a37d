//! Holds the layers of ARCHITECTURE.md: reads every import of the root package and the manifests of its crates, and
//! fails on an import that points upwards, on a cycle between modules, and on a map that misses a module.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The modules of the root package from the ground up. A module may import those of the layers before its own.
const LAYERS: &[&[&str]] = &[
    // Crates that lib.rs re-exports: each may be used everywhere.
    &["entry", "error", "key", "model", "outcome", "prompt", "decide", "embed", "index"],
    &["config"],
    &["telemetry"],
    &["body", "store", "tenant", "upstream"],
    &["cache", "learn"],
    &["pipeline"],
    &["grpc", "http"],
    &["server"],
    &["offline"],
    &["demo"],
    &["cli"],
];

/// The crates from the ground up, with the dependencies that each must not have.
const CRATES: &[(&str, &[&str])] = &[
    ("promptkeep-core", &["tonic", "axum", "redis", "tokio", "reqwest", "redb"]),
    ("promptkeep-decide", &["tonic", "axum", "redis", "tokio", "reqwest", "redb", "promptkeep-embed"]),
    ("promptkeep-embed", &["tonic", "redis", "redb", "promptkeep-decide", "promptkeep-index"]),
    (
        "promptkeep-index",
        &["tonic", "axum", "redis", "tokio", "reqwest", "promptkeep-decide", "promptkeep-embed"],
    ),
];

#[test]
fn every_import_points_down() {
    let imports = imports_of(&root().join("src"));
    let rank = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut problems = Vec::new();
    for (from, to, file) in &imports {
        match (rank(from), rank(to)) {
            (Some(above), Some(below)) if above > below => {}
            (Some(_), Some(_)) => problems.push(format!("{file}: {from} must not import {to}")),
            (None, _) => problems.push(format!("{file}: {from} is in no layer")),
            (_, None) => problems.push(format!("{file}: {to} is in no layer")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(imports.len() > 100, "only {} imports were found", imports.len());
}

#[test]
fn every_module_is_in_one_layer() {
    let listed: Vec<&str> = LAYERS.concat();
    assert_eq!(listed.len(), listed.iter().collect::<BTreeSet<_>>().len(), "a module is listed twice");
    let on_disk = modules(&root().join("src"));
    assert_eq!(
        on_disk.difference(&listed.iter().map(|m| (*m).to_owned()).collect()).count(),
        0,
        "{on_disk:?}"
    );
}

#[test]
fn crates_depend_downwards_only() {
    let names: Vec<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    let folders = fs::read_dir(root().join("crates")).unwrap();
    for folder in folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(names.contains(&folder.as_str()), "crates/{folder} is in no layer");
    }
    for (position, (name, forbidden)) in CRATES.iter().enumerate() {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        for above in names[position..].iter().chain(forbidden.iter()) {
            assert!(!dependencies.contains_key(*above), "{name} must not depend on {above}");
        }
        assert!(!dependencies.contains_key("promptkeep"), "{name} must not depend on the server");
    }
}

#[test]
fn architecture_md_maps_every_module_and_names_no_other_path() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let places = [root(), root().join("src")];
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let is_path = |word: &str| {
        word.ends_with(".rs")
            || (word.ends_with('/') && word.bytes().all(|b| b.is_ascii_lowercase() || b"/_-".contains(&b)))
    };
    for path in quoted.iter().filter(|word| is_path(word)) {
        assert!(
            places.iter().any(|place| place.join(path).exists()),
            "ARCHITECTURE.md names {path}, which is not there"
        );
    }
    for module in modules(&root().join("src")) {
        let named = [format!("{module}.rs"), format!("{module}/")];
        assert!(
            named.iter().any(|name| quoted.contains(&name.as_str())),
            "ARCHITECTURE.md does not map {module}"
        );
    }
}

#[test]
fn an_upward_import_is_found_in_every_way_of_writing_it() {
    let source = "
        use crate::{config::Config, pipeline::{self, Pipeline}};
        // use crate::http::Api;
        pub use crate::store as kept;
        fn f() -> crate::grpc::proto::Prompt { crate::cli::run() }
        #[cfg(test)]
        mod tests;
        #[cfg(test)]
        mod tests { use crate::server::Server; }
    ";
    let found: Vec<String> = imported_modules(source).into_iter().collect();
    assert_eq!(found, ["cli", "config", "grpc", "pipeline", "store"]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The top-level modules: files and folders of `src`.
fn modules(src: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(src).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let module = |name: String| name.trim_end_matches(".rs").to_owned();
    names.map(module).filter(|module| !["lib", "main"].contains(&module.as_str())).collect()
}

/// Every import between two top-level modules: the importing one, the imported one and the file.
fn imports_of(src: &Path) -> Vec<(String, String, String)> {
    let mut imports = BTreeMap::new();
    for file in rust_files(src) {
        let path = file.strip_prefix(src).unwrap();
        let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        for imported in imported_modules(&fs::read_to_string(&file).unwrap()) {
            if imported != module {
                imports.insert((module.clone(), imported, path.display().to_string()), ());
            }
        }
    }
    imports.into_keys().collect()
}

/// All source files below `folder` that are not tests.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules that a source text names after `crate::`, outside comments and unit tests.
fn imported_modules(source: &str) -> BTreeSet<String> {
    let code = source.split("mod tests {").next().unwrap_or_default();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut modules = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => modules.extend(first_segments(list)),
            None => modules.extend([identifier(after)]),
        }
    }
    modules
}

/// The first segment of each path in a `use` list, up to the brace that closes it.
fn first_segments(list: &str) -> Vec<String> {
    let (mut depth, mut segments, mut is_start) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            c if is_start && c.is_alphabetic() => {
                segments.push(identifier(&list[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
    segments
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
