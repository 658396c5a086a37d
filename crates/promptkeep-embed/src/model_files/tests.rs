//! Tests of finding and verifying the model's files.

use tempfile::TempDir;

use super::*;

fn os(text: &str) -> Option<OsString> {
    Some(OsString::from(text))
}

#[test]
fn the_cache_directory_follows_the_xdg_rules() {
    assert_eq!(cache_folder(os("/x"), os("/h")), Some(PathBuf::from("/x")));
    assert_eq!(cache_folder(os("relative"), os("/h")), Some(PathBuf::from("/h/.cache")));
    assert_eq!(cache_folder(os(""), os("/h")), Some(PathBuf::from("/h/.cache")));
    assert_eq!(cache_folder(None, os("/h")), Some(PathBuf::from("/h/.cache")));
    assert_eq!(cache_folder(None, os("")), None);
    assert_eq!(cache_folder(None, None), None);
}

#[test]
fn a_configured_directory_takes_precedence() {
    assert_eq!(folder(Some(Path::new("/models/x"))).unwrap(), PathBuf::from("/models/x"));
}

#[test]
fn the_error_names_a_missing_file_and_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let Err(error) = read(dir.path()) else { panic!("an empty folder has a model") };
    let text = error.to_string();
    assert!(text.contains(&dir.path().join("model.safetensors").display().to_string()), "{text}");
    for words in ["model pull", "huggingface.co", "vocab.txt", "embedding.model_dir"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn the_error_names_a_damaged_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, b"truncated").unwrap();
    let Err(error) = read(dir.path()) else { panic!("the checksum was not verified") };
    assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn the_error_names_an_unreadable_file() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let Err(error) = read(dir.path()) else { panic!("a folder was read as a file") };
    assert!(matches!(error, ModelError::Io { .. }), "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}
