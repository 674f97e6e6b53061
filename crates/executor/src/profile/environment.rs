//! The environment of a command: fixed, with a few values of the user that are no secrets.
//!
//! Invariant: no variable that steers the sandbox or git's safety can be overridden by the request.

use super::Places;
use super::reach::Reach;
use super::real::Real;
use crate::options::{NetworkChoice, SandboxOptions};
use std::collections::BTreeMap;
use std::path::Path;
use tinkerbell_core::port::{ExecSpec, Level};

/// Used where the request names no PATH that can be read.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Toolchain managers that look for their root in a variable, and where it is by default.
const ROOTS: &[(&str, &str)] = &[
    ("RUSTUP_HOME", ".rustup"),
    ("PYENV_ROOT", ".pyenv"),
    ("NVM_DIR", ".nvm"),
    ("VOLTA_HOME", ".volta"),
    ("ASDF_DATA_DIR", ".asdf"),
    ("MISE_DATA_DIR", ".local/share/mise"),
    ("SDKMAN_DIR", ".sdkman"),
    ("RBENV_ROOT", ".rbenv"),
];

/// Without a network, tools that are told so fail at once instead of after retries.
const OFFLINE: &[(&str, &str)] = &[
    ("CARGO_NET_OFFLINE", "true"),
    ("npm_config_offline", "true"),
    ("npm_config_audit", "false"),
    ("npm_config_fund", "false"),
    ("npm_config_update_notifier", "false"),
    ("PIP_NO_INDEX", "1"),
    ("UV_OFFLINE", "1"),
    ("GOSUMDB", "off"),
    ("GOTOOLCHAIN", "local"),
    ("MAVEN_ARGS", "--offline"),
];

/// Variables by which programs find the certificates that they trust.
const TRUST: &[&str] =
    &["SSL_CERT_FILE", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"];

/// Builds the whole environment.
#[must_use]
pub fn build(
    options: &SandboxOptions,
    spec: &ExecSpec,
    level: Level,
    (places, reach, real): (&Places, &Reach, &Real),
) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = options.env.iter().chain(&spec.env).cloned().collect();
    if let Some(way) = options.way_out.as_ref().filter(|_| options.network == NetworkChoice::Proxy) {
        // Before everything that is fixed: a name in the operator's list must not steer the sandbox.
        env.extend(way.env.iter().cloned());
    }
    let mut set = |key: &str, value: &str| drop(env.insert(key.to_owned(), value.to_owned()));
    for (key, value) in [("SHELL", "/bin/sh"), ("TERM", "dumb"), ("PAGER", "cat"), ("GIT_PAGER", "cat"), ("GIT_TERMINAL_PROMPT", "0")] {
        set(key, value);
    }
    let git = [("GIT_OPTIONAL_LOCKS", "0"), ("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
    for (key, value) in git {
        set(key, value);
    }
    set("TINKERBELL_RUN", &spec.run.to_string());
    if level == Level::None {
        if let Some(home) = &options.home {
            set("HOME", &home.to_string_lossy());
        }
    } else {
        private(&mut set, options, places, level);
    }
    let path = env.get("PATH").cloned().unwrap_or_else(|| options.path.clone());
    env.insert("PATH".into(), if level == Level::None { path } else { readable(&path, (places, reach, real)) });
    env.entry("LANG".into()).or_insert_with(|| "C.UTF-8".into());
    env.into_iter().collect()
}

fn private(set: &mut impl FnMut(&str, &str), options: &SandboxOptions, places: &Places, level: Level) {
    let home = places.home.to_string_lossy();
    let tmp = if level == Level::Full { "/tmp".into() } else { places.tmp.to_string_lossy() };
    for (key, value) in [("HOME", ""), ("CARGO_HOME", "/.cargo"), ("npm_config_cache", "/.npm"), ("GRADLE_USER_HOME", "/.gradle")] {
        set(key, &format!("{home}{value}"));
    }
    let xdg = [
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_CACHE_HOME", ".cache"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_STATE_HOME", ".local/state"),
    ];
    for (key, value) in xdg {
        set(key, &format!("{home}/{value}"));
    }
    for key in ["TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR"] {
        set(key, &tmp);
    }
    set("GOPATH", &format!("{home}/go"));
    set("GOFLAGS", "-modcacherw");
    // Java takes the home from the user database, not from HOME.
    set("MAVEN_OPTS", &format!("-Duser.home={home}"));
    if let Some(user) = &options.home {
        for (key, place) in ROOTS {
            let named = options.env.iter().any(|(name, _)| name == key);
            let root = user.join(place);
            if !named && root.is_dir() {
                set(key, &root.to_string_lossy());
            }
        }
    }
    match options.network {
        NetworkChoice::None => {
            OFFLINE.iter().for_each(|(key, value)| set(key, value));
            set("GOPROXY", &format!("file://{home}/.goproxy,off"));
        }
        NetworkChoice::Proxy => way_out(set, options),
        NetworkChoice::Host => {}
    }
}

/// The way to the proxy, in every spelling that programs look for.
fn way_out(set: &mut impl FnMut(&str, &str), options: &SandboxOptions) {
    let port = super::PROXY_PORT;
    for (key, scheme) in [("HTTP_PROXY", "http"), ("HTTPS_PROXY", "http"), ("ALL_PROXY", "socks5h")] {
        let value = format!("{scheme}://127.0.0.1:{port}");
        set(key, &value);
        set(&key.to_ascii_lowercase(), &value);
    }
    for key in ["NO_PROXY", "no_proxy"] {
        set(key, "localhost,127.0.0.1");
    }
    // What would only ask for more than the list allows.
    for (key, value) in [("npm_config_audit", "false"), ("npm_config_fund", "false"), ("npm_config_update_notifier", "false")] {
        set(key, value);
    }
    if options.way_out.as_ref().is_some_and(|way| way.reads_tls) {
        TRUST.iter().for_each(|key| set(key, super::CERTIFICATES));
    }
}

/// The entries of a PATH that a command can see; the others would only slow every lookup down.
fn readable(path: &str, (places, reach, real): (&Places, &Reach, &Real)) -> String {
    let is_seen = |entry: &&str| {
        let dir = Path::new(entry);
        dir.is_absolute() && (dir.starts_with(&places.tree) || reach.shows(dir, real))
    };
    let seen: Vec<&str> = path.split(':').filter(is_seen).collect();
    if seen.is_empty() { PATH.to_owned() } else { seen.join(":") }
}
