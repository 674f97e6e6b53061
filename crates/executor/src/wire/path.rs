//! Paths in messages: text where they are text, else their bytes.
//!
//! A name on disk may be any bytes, and one that is no UTF-8 must not keep commands from starting. Invariant: what was
//! written is read again byte for byte.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

fn to_form(path: &Path) -> Form {
    path.to_str().map_or_else(|| Form::Bytes(path.as_os_str().as_bytes().to_vec()), |text| Form::Text(text.to_owned()))
}

fn from_form(form: Form) -> PathBuf {
    match form {
        Form::Text(text) => text.into(),
        Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
    }
}

pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to_form(path).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Form::deserialize(from).map(from_form)
}

/// Several of them.
pub(super) mod list {
    use super::{Deserialize as _, Deserializer, Form, PathBuf, Serializer, from_form, to_form};

    pub(in super::super) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| to_form(path)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        Vec::<Form>::deserialize(from).map(|forms| forms.into_iter().map(from_form).collect())
    }
}

/// One or none.
pub(super) mod maybe {
    use super::{Deserialize as _, Deserializer, Form, PathBuf, Serialize as _, Serializer, from_form, to_form};

    // Serde hands the field's type in.
    #[expect(clippy::ref_option)]
    pub(in super::super) fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(to_form).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Option::<Form>::deserialize(from).map(|form| form.map(from_form))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mount, Rules};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::PathBuf;

    #[test]
    fn every_name_comes_back_and_texts_stay_texts() {
        let odd = PathBuf::from(OsStr::from_bytes(b"/etc/caf\xe9.conf"));
        let mount = Mount::Bind { from: odd.clone(), to: "/plain".into(), writable: false };
        let text = serde_json::to_string(&mount).unwrap();
        assert!(text.contains("[47,101,116,99,47,99,97,102,233,") && text.contains("\"to\":\"/plain\""), "{text}");
        assert_eq!(serde_json::from_str::<Mount>(&text).unwrap(), mount);
        let rules = Rules { read: vec!["/a".into(), odd], ..Rules::default() };
        assert_eq!(serde_json::from_str::<Rules>(&serde_json::to_string(&rules).unwrap()).unwrap(), rules);
    }
}
