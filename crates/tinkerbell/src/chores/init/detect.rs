//! What kind of project a directory holds: languages, commands, shape.
//!
//! Looks at names and small manifests at the root only, and runs nothing. Invariant: everything
//! that is told was seen in a file; nothing is guessed.

use std::path::Path;

/// The most that is read of a manifest.
const MANIFEST_BYTES: u64 = 256 * 1024;
/// Most directories that are told of.
const DIRS: usize = 12;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    /// The directory's name.
    pub name: String,
    /// Languages with the manifest that tells, most telling first.
    pub languages: Vec<(String, String)>,
    /// The command that runs the tests, with the file that tells.
    pub test: Option<(String, String)>,
    /// Further commands: what for, and the command.
    pub commands: Vec<(String, String)>,
    /// Directories at the root.
    pub dirs: Vec<String>,
    /// Documents at the root that newcomers should read.
    pub documents: Vec<String>,
    /// The file of rules for agents that is in force, if any.
    pub rules: Option<String>,
}

/// A kind of project by its manifest.
struct Kind {
    manifest: &'static str,
    language: &'static str,
    test: &'static str,
    commands: &'static [(&'static str, &'static str)],
}

const fn kind(
    manifest: &'static str,
    language: &'static str,
    test: &'static str,
    commands: &'static [(&'static str, &'static str)],
) -> Kind {
    Kind { manifest, language, test, commands }
}

/// The more telling first; an empty test command means that more must be looked at.
const KINDS: [Kind; 19] = [
    kind("Cargo.toml", "Rust", "cargo test", &[("build", "cargo build"), ("lint", "cargo clippy --all-targets"), ("format", "cargo fmt")]),
    kind("package.json", "JavaScript", "", &[]),
    kind("go.mod", "Go", "go test ./...", &[("build", "go build ./..."), ("lint", "go vet ./...")]),
    kind("pyproject.toml", "Python", "", &[]),
    kind("setup.py", "Python", "", &[]),
    kind("requirements.txt", "Python", "", &[]),
    kind("pom.xml", "Java", "mvn -q test", &[("build", "mvn -q package")]),
    kind("build.gradle.kts", "Kotlin or Java", "", &[]),
    kind("build.gradle", "Java", "", &[]),
    kind("mix.exs", "Elixir", "mix test", &[("format", "mix format")]),
    kind("Gemfile", "Ruby", "", &[]),
    kind("composer.json", "PHP", "", &[]),
    kind("Package.swift", "Swift", "swift test", &[("build", "swift build")]),
    kind("pubspec.yaml", "Dart", "dart test", &[]),
    kind("deno.json", "TypeScript", "deno test", &[]),
    kind("build.zig", "Zig", "zig build test", &[("build", "zig build")]),
    kind("dune-project", "OCaml", "dune test", &[("build", "dune build")]),
    kind("stack.yaml", "Haskell", "stack test", &[]),
    kind("CMakeLists.txt", "C or C++", "", &[]),
];

/// Looks at a root.
#[must_use]
pub fn detect(root: &Path) -> Project {
    let (mut dirs, mut files) = entries(root);
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let documents = ["README.md", "README", "CONTRIBUTING.md", "ARCHITECTURE.md", "DEVELOPMENT.md"];
    let rules = ["AGENTS.md", "CLAUDE.md", "GEMINI.md"];
    let mut project = Project {
        name,
        documents: documents.iter().filter(|name| files.iter().any(|file| file == *name)).map(|name| (*name).to_owned()).collect(),
        rules: rules.iter().find(|name| files.iter().any(|file| file == *name)).map(|name| (*name).to_owned()),
        ..Project::default()
    };
    files.sort();
    for kind in KINDS.iter().filter(|kind| files.iter().any(|file| file == kind.manifest)) {
        add(&mut project, root, kind, &files);
    }
    make(&mut project, root, &files);
    if project.test.is_none() {
        let scripts = ["tests/run.sh", "test.sh", "run-tests.sh", "run_tests.sh"];
        project.test = scripts.iter().find(|name| root.join(name).is_file()).map(|name| (format!("sh {name}"), (*name).to_owned()));
    }
    dirs.sort();
    dirs.truncate(DIRS);
    project.dirs = dirs;
    project
}

fn add(project: &mut Project, root: &Path, kind: &Kind, files: &[String]) {
    let has = |name: &str| files.iter().any(|file| file == name);
    let language = if kind.language == "JavaScript" && has("tsconfig.json") { "TypeScript" } else { kind.language };
    if !project.languages.iter().any(|(known, _)| known == language) {
        project.languages.push((language.to_owned(), kind.manifest.to_owned()));
    }
    let text = read(root, kind.manifest);
    let test = match kind.manifest {
        "package.json" => package(project, &text, files),
        "pyproject.toml" | "setup.py" | "requirements.txt" => python(root, files),
        "build.gradle.kts" | "build.gradle" => Some(if has("gradlew") { "./gradlew test" } else { "gradle test" }.to_owned()),
        "Gemfile" if text.contains("rspec") => Some("bundle exec rspec".to_owned()),
        "Gemfile" => has("Rakefile").then(|| "bundle exec rake test".to_owned()),
        "composer.json" => (has("phpunit.xml") || has("phpunit.xml.dist")).then(|| "vendor/bin/phpunit".to_owned()),
        _ => (!kind.test.is_empty()).then(|| kind.test.to_owned()),
    };
    if let Some(test) = test.filter(|_| project.test.is_none()) {
        project.test = Some((test, kind.manifest.to_owned()));
    }
    for (what, command) in kind.commands {
        note(project, what, command);
    }
}

/// The first command for a purpose is kept.
fn note(project: &mut Project, what: &str, command: &str) {
    if !project.commands.iter().any(|(known, _)| known == what) {
        project.commands.push((what.to_owned(), command.to_owned()));
    }
}

/// The scripts of a `package.json`, run by the manager whose lock file stands beside it.
fn package(project: &mut Project, text: &str, files: &[String]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let scripts = manifest.get("scripts")?.as_object()?.clone();
    let managers = [("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"), ("bun.lock", "bun"), ("bun.lockb", "bun")];
    let manager = managers.iter().find(|(lock, _)| files.iter().any(|file| file == lock)).map_or("npm", |(_, manager)| manager);
    let has = |name: &str| scripts.get(name).and_then(|script| script.as_str()).filter(|script| !script.trim().is_empty()).is_some();
    for (what, script) in [("build", "build"), ("lint", "lint"), ("format", "format")] {
        if has(script) {
            note(project, what, &format!("{manager} run {script}"));
        }
    }
    let test = scripts.get("test").and_then(|script| script.as_str()).unwrap_or_default();
    // The text that `npm init` writes is no test.
    let is_real = !test.trim().is_empty() && !test.contains("no test specified");
    is_real.then(|| if manager == "bun" { "bun run test".to_owned() } else { format!("{manager} test") })
}

fn python(root: &Path, files: &[String]) -> Option<String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let runner = if has("uv.lock") { "uv run pytest -q" } else { "python3 -m pytest -q" };
    let told = ["pyproject.toml", "tox.ini", "setup.cfg", "requirements-dev.txt", "requirements.txt"];
    let is_pytest = has("pytest.ini")
        || has("conftest.py")
        || root.join("tests/conftest.py").is_file()
        || told.iter().any(|name| read(root, name).contains("pytest"));
    if is_pytest {
        return Some(runner.to_owned());
    }
    let has_tests = |dir: &Path| {
        entries(dir).1.iter().any(|name| name.starts_with("test") && Path::new(name).extension().is_some_and(|end| end == "py"))
    };
    if has_tests(&root.join("tests")) {
        return Some("python3 -m unittest discover -q -s tests".to_owned());
    }
    has_tests(root).then(|| "python3 -m unittest -q".to_owned())
}

/// Targets of a Makefile; its `test` rules only where no manifest told of tests.
fn make(project: &mut Project, root: &Path, files: &[String]) {
    let Some(name) = ["GNUmakefile", "makefile", "Makefile"].into_iter().find(|name| files.iter().any(|file| file == name)) else { return };
    let text = read(root, name);
    let has = |target: &str| {
        text.lines().any(|line| {
            line.strip_prefix(target).is_some_and(|rest| rest.trim_start().starts_with(':') && !rest.trim_start().starts_with(":="))
        })
    };
    if let Some(target) = ["test", "check"].into_iter().find(|target| has(target))
        && project.test.is_none()
    {
        project.test = Some((format!("make {target}"), name.to_owned()));
    }
    for target in ["build", "lint", "format"].into_iter().filter(|target| has(target)) {
        note(project, target, &format!("make {target}"));
    }
}

/// Names of directories and of files; hidden directories are left out.
fn entries(dir: &Path) -> (Vec<String>, Vec<String>) {
    let Ok(read) = std::fs::read_dir(dir) else { return (Vec::new(), Vec::new()) };
    let (mut dirs, mut files) = (Vec::new(), Vec::new());
    for entry in read.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !name.starts_with('.') => dirs.push(name),
            Ok(kind) if kind.is_file() => files.push(name),
            _ => {}
        }
    }
    (dirs, files)
}

fn read(root: &Path, name: &str) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(root.join(name));
    // What can not be read tells nothing.
    let _unread = file.and_then(|file| file.take(MANIFEST_BYTES).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
