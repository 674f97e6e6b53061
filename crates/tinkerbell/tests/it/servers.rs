//! Real MCP servers, as their makers publish them, driven through the command line and by a task.
//!
//! `cargo xtask test --with servers` fetches them by package name; nothing of them is kept here. Invariant: each
//! works at both complete levels, without a network, and does what its sandbox lets it do, whatever it is asked.

use crate::home::{Home, Out, finish_within};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_testkit::llm::{Scripted, Turn};

/// The directory of the servers.
const SERVERS: &str = "TINKERBELL_TEST_SERVERS";
/// Longest time of one command on a busy machine: a server may need half a minute to load.
const PATIENCE: Duration = Duration::from_secs(240);

/// A call of a tool, and what its answer holds.
type Tried = (&'static str, Value, &'static str);

/// One server, and what is tried with it.
struct Case {
    kind: &'static str,
    name: &'static str,
    /// What starts it, below its kind's directory.
    main: &'static str,
    args: &'static [&'static str],
    /// Options of `mcp add`.
    rights: &'static [&'static str],
    /// A tool that it offers.
    offers: &'static str,
    tried: Vec<Tried>,
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            kind: "node",
            name: "everything",
            main: "node_modules/@modelcontextprotocol/server-everything/dist/index.js",
            args: &["stdio"],
            rights: &[],
            offers: "everything.trigger-long-running-operation",
            tried: vec![
                ("echo", json!({ "message": "héllo \u{1f9da}" }), "Echo: héllo \u{1f9da}"),
                ("get-sum", json!({ "a": 2, "b": 40 }), "The sum of 2 and 40 is 42"),
                ("get-structured-content", json!({ "location": "Chicago" }), "temperature"),
                ("get-tiny-image", json!({}), "[image, image/png"),
                ("get-annotated-message", json!({ "messageType": "error", "includeImage": true }), "Error"),
                ("get-resource-links", json!({ "count": 2 }), "demo://resource"),
                ("get-resource-reference", json!({ "resourceType": "Text", "resourceId": 1 }), "demo://resource"),
                ("trigger-long-running-operation", json!({ "duration": 1, "steps": 4 }), "Long running operation completed"),
                ("toggle-simulated-logging", json!({}), "logging"),
                ("get-env", json!({}), "PATH"),
                ("gzip-file-as-resource", json!({ "name": "x.gz", "data": "https://example.com/x" }), "fetch"),
                ("get-sum", json!({ "a": "no number", "b": 1 }), "get-sum"),
                ("echo", json!({ "message": "still there" }), "Echo: still there"),
            ],
        },
        Case {
            kind: "node",
            name: "files",
            main: "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js",
            // It begins in the worktree.
            args: &["."],
            rights: &["--writes"],
            offers: "files.write_file",
            tried: vec![
                ("read_text_file", json!({ "path": "{tree}/src/a.txt" }), "two\\nthree"),
                ("list_directory", json!({ "path": "{tree}" }), "[FILE] run.sh"),
                ("write_file", json!({ "path": "{tree}/made.txt", "content": "made by a server\n" }), "Successfully wrote"),
                ("edit_file", json!({ "path": "{tree}/src/a.txt", "edits": [{ "oldText": "two", "newText": "2" }] }), "+2"),
                ("write_file", json!({ "path": "{tree}/AGENTS.md", "content": "evil\n" }), "files.write_file"),
                ("read_text_file", json!({ "path": "{home}/.ssh/id_ed25519" }), "files.read_text_file"),
                ("write_file", json!({ "path": "{home}/written", "content": "evil\n" }), "files.write_file"),
                ("write_file", json!({ "path": "{repo}/written", "content": "evil\n" }), "files.write_file"),
                ("list_directory", json!({ "path": "{repo}/.git/hooks" }), "files.list_directory"),
            ],
        },
        Case {
            kind: "python",
            name: "time",
            main: "mcp_server_time",
            args: &["--local-timezone", "UTC"],
            rights: &["--no-reads"],
            offers: "time.convert_time",
            tried: vec![
                ("get_current_time", json!({ "timezone": "Europe/Paris" }), "Europe/Paris"),
                ("convert_time", json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" }), "T21:00:00"),
                ("get_current_time", json!({ "timezone": "Nowhere/Else" }), "time.get_current_time"),
            ],
        },
        Case {
            kind: "python",
            name: "git",
            main: "mcp_server_git",
            args: &[],
            rights: &[],
            offers: "git.git_commit",
            tried: vec![
                ("git_log", json!({ "repo_path": "{tree}" }), "base"),
                ("git_status", json!({ "repo_path": "{tree}" }), "working tree clean"),
                ("git_create_branch", json!({ "repo_path": "{tree}", "branch_name": "evil" }), "git.git_create_branch"),
                ("git_commit", json!({ "repo_path": "{tree}", "message": "evil" }), "git.git_commit"),
            ],
        },
    ]
}

/// The words by which a server is started; `None`, with a word, where it is not there.
fn command(case: &Case, servers: &Path) -> Option<(Vec<String>, Option<PathBuf>)> {
    let dir = servers.join(case.kind);
    if !servers.join(format!("{}.ready", case.kind)).is_file() {
        eprintln!("skipped: {} (its kind is not fetched)", case.name);
        return None;
    }
    let program = match case.kind {
        "node" => ["node", "-p", "process.execPath"],
        _ => ["python3", "-c", "import sys; print(sys.executable)"],
    };
    let out = std::process::Command::new(program[0]).args(&program[1..]).output().unwrap();
    let mut words = vec![String::from_utf8(out.stdout).unwrap().trim().to_owned()];
    let path = (case.kind == "python").then_some(dir.clone());
    match case.kind {
        "node" => words.push(dir.join(case.main).display().to_string()),
        _ => words.extend(["-m".to_owned(), case.main.to_owned()]),
    }
    words.extend(case.args.iter().map(|word| (*word).to_owned()));
    Some((words, path))
}

async fn run(home: &Home, args: &[&str]) -> Out {
    let mut command = home.command(args);
    command.env("SECRET_API_KEY", "canary-of-the-environment");
    finish_within(command, args, PATIENCE).await
}

/// A text with the places of a home put in.
fn placed(text: &str, home: &Home, tree: &str) -> String {
    let user = home.dir.path().join("home").display().to_string();
    text.replace("{tree}", tree).replace("{home}", &user).replace("{repo}", &home.repo.display().to_string())
}

async fn drive(case: &Case, servers: &Path, level: &'static str) {
    let Some((words, path)) = command(case, servers) else { return };
    let mut home = Home::bare_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    home.level = level;
    let ssh = home.dir.path().join("home/.ssh");
    std::fs::create_dir_all(&ssh).unwrap();
    std::fs::write(ssh.join("id_ed25519"), "canary-of-the-key").unwrap();
    let turns = case.tried.iter().map(|(tool, args, _)| {
        // Servers begin in the worktree, so that it can be named without its path.
        let args = placed(&args.to_string(), &home, ".");
        Turn::call("tool_use", json!({ "tool": format!("{}.{tool}", case.name), "args": serde_json::from_str::<Value>(&args).unwrap() }))
    });
    let model = Scripted::start(turns.chain([Turn::text("done")]).collect()).await.unwrap();
    home.config(&format!(
        "model = \"local/scripted\"\n[providers.local]\nwire = \"openai\"\nbase_url = \"{}\"\n[models.\"local/scripted\"]\ncontext_tokens = 200000\n",
        model.base_url()
    ));
    home.model = Some(model);
    let dir = servers.join(case.kind).display().to_string();
    let variable = path.map(|path| format!("PYTHONPATH={}", path.display()));
    let mut add = vec!["mcp", "add", case.name, "--read", &dir];
    add.extend(case.rights);
    add.extend(variable.iter().flat_map(|variable| ["--env", variable.as_str()]));
    add.push("--");
    add.extend(words.iter().map(String::as_str));
    run(&home, &add).await.exits(0);
    run(&home, &["mcp", "tools", case.name]).await.exits(0).says(case.offers);
    run(&home, &["mcp", "approve", "--yes", case.name]).await.exits(0).says("agreed");
    // The first call is asked for, the others are allowed by a rule.
    run(&home, &["run", "use it"]).await.exits(4).says("belongs to an MCP server");
    let rule = format!("[[rule]]\nid = \"own\"\ntools = [\"{}.*\"]\ndecision = \"allow\"\nmatch = [\"{0}.x\"]\n", case.name);
    std::fs::write(home.tb().join("policy.toml"), rule).unwrap();
    let tasks: Value = serde_json::from_str(&run(&home, &["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = tasks[0]["short"].as_str().unwrap();
    run(&home, &["approve", task]).await.exits(0);
    let ended = run(&home, &["wait", task]).await;
    if ended.code == 4 {
        // The policy changed meanwhile, so it is asked for once more.
        run(&home, &["approve", task]).await.exits(0);
        run(&home, &["wait", task]).await.exits(0);
    } else {
        ended.exits(0);
    }
    judge(case, &home, task, level).await;
}

/// Whether each answer is what it should be, and nothing outside was touched.
async fn judge(case: &Case, home: &Home, task: &str, level: &str) {
    let requests = home.model.as_ref().unwrap().requests();
    let body = &requests.last().unwrap().body;
    let answers: Vec<String> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "tool")
        .map(|message| message["content"].to_string())
        .collect();
    assert_eq!(answers.len(), case.tried.len(), "{} at {level}: {answers:#?}", case.name);
    for ((tool, args, holds), answer) in case.tried.iter().zip(&answers) {
        assert!(answer.contains(holds), "{}.{tool} {args} at {level} said {answer}, not {holds}", case.name);
    }
    let told = body.to_string();
    assert!(!told.contains("canary-of-the"), "{} at {level}: {told}", case.name);
    assert!(!home.dir.path().join("home/written").exists() && !home.repo.join("written").exists(), "{} at {level}", case.name);
    assert_eq!(home.git(&["branch", "--list", "evil"]), "");
    assert_eq!(home.git(&["log", "--format=%s", "-1", "main"]), "base");
    let diff = run(home, &["diff", task]).await.exits(0).stdout;
    assert!(!diff.contains("evil"), "{} at {level}: {diff}", case.name);
    if case.rights.contains(&"--writes") {
        assert!(diff.contains("+made by a server") && diff.contains("+2"), "{diff}");
        run(home, &["undo", task]).await.exits(0);
    }
    eprintln!("{} at {level}: {} calls", case.name, answers.len());
}

async fn all(level: &'static str) {
    let Ok(servers) = std::env::var(SERVERS) else {
        return eprintln!("skipped: no servers are named by {SERVERS}; cargo xtask test --with servers fetches them");
    };
    for case in cases() {
        drive(&case, Path::new(&servers), level).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_servers_work_in_the_full_sandbox() {
    all("full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn published_servers_work_in_the_landlock_sandbox() {
    all("landlock").await;
}
