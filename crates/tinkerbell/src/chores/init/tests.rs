//! Detection by a table, and what `init` writes and leaves alone.

use super::super::bench::{Bench, Heard};
use super::*;

#[test]
fn projects_are_known_by_their_manifests() {
    for (files, language, test) in [
        (vec![("Cargo.toml", "")], "Rust", "cargo test"),
        (vec![("package.json", r#"{"scripts":{"test":"jest"}}"#)], "JavaScript", "npm test"),
        (
            vec![("package.json", r#"{"scripts":{"test":"jest"}}"#), ("tsconfig.json", ""), ("pnpm-lock.yaml", "")],
            "TypeScript",
            "pnpm test",
        ),
        (vec![("package.json", r#"{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}"#)], "JavaScript", ""),
        (vec![("package.json", "not json")], "JavaScript", ""),
        (vec![("go.mod", "module x")], "Go", "go test ./..."),
        (vec![("pyproject.toml", "[tool.pytest.ini_options]")], "Python", "python3 -m pytest -q"),
        (vec![("pyproject.toml", ""), ("tests/test_a.py", "")], "Python", "python3 -m unittest discover -q -s tests"),
        (vec![("requirements.txt", "flask"), ("test_a.py", "")], "Python", "python3 -m unittest -q"),
        (vec![("pom.xml", "")], "Java", "mvn -q test"),
        (vec![("build.gradle", ""), ("gradlew", "")], "Java", "./gradlew test"),
        (vec![("Gemfile", "gem 'rspec'")], "Ruby", "bundle exec rspec"),
        (vec![("CMakeLists.txt", ""), ("Makefile", "all:\ncheck: all\n")], "C or C++", "make check"),
        (vec![("Makefile", "test := x\n")], "", ""),
        (vec![("test.sh", "")], "", "sh test.sh"),
        (vec![], "", ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in &files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let project = detect(dir.path());
        let seen = project.languages.first().map_or("", |(language, _)| language.as_str());
        assert_eq!((seen, project.test.as_ref().map_or("", |(test, _)| test.as_str())), (language, test), "{files:?}");
    }
}

fn repository() -> Bench {
    let bench = Bench::new();
    bench.write("work/.git/HEAD", "ref: refs/heads/main\n");
    bench.write("work/Cargo.toml", "[package]\nname = \"it\"\n");
    bench.write("work/src/lib.rs", "");
    bench.write("work/README.md", "");
    // A configured model: nothing is looked for on the network.
    bench.write("home/config.toml", "model = \"ollama/any\"\n");
    bench
}

#[tokio::test]
async fn with_yes_everything_missing_is_written_and_read_back() {
    let (mut bench, heard) = (repository(), Heard::new());
    bench.cwd = bench.cwd.join("src");
    assert_eq!(init(&bench.shop(), true, &heard.out).await, Ok(exit::DONE));
    let root = bench.dir.path().join("work");
    assert_eq!(config::read_project(&root).unwrap().config.verify.command.as_deref(), Some("cargo test"));
    assert_eq!(std::fs::read_to_string(root.join(".tinkerbell/.gitignore")).unwrap(), "config.local.toml\n");
    let rules = std::fs::read_to_string(root.join("AGENTS.md")).unwrap();
    assert!(rules.lines().count() <= 60 && rules.contains("- test: `cargo test`") && rules.contains("- `src/`"), "{rules}");
    for line in ["found    Rust (Cargo.toml)", "wrote    .tinkerbell/config.toml", "wrote    AGENTS.md", "next     tinkerbell run"] {
        assert!(heard.talk().contains(line), "{line}: {}", heard.talk());
    }
    assert_eq!(heard.data(), "");
}

#[tokio::test]
async fn nothing_that_exists_is_changed() {
    let (bench, heard) = (repository(), Heard::new());
    bench.write("work/.tinkerbell/config.toml", "[verify]\ncommand = \"mine\"\n");
    bench.write("work/CLAUDE.md", "mine");
    init(&bench.shop(), true, &heard.out).await.unwrap();
    let root = bench.dir.path().join("work");
    assert_eq!(std::fs::read_to_string(root.join(".tinkerbell/config.toml")).unwrap(), "[verify]\ncommand = \"mine\"\n");
    assert!(!root.join("AGENTS.md").exists());
    assert!(heard.talk().contains("kept     .tinkerbell/config.toml") && heard.talk().contains("kept     CLAUDE.md"), "{}", heard.talk());
}

#[tokio::test]
async fn without_anybody_to_ask_no_rules_are_written() {
    let (bench, heard) = (repository(), Heard::new());
    std::fs::remove_file(bench.cwd.join("Cargo.toml")).unwrap();
    init(&bench.shop(), false, &heard.out).await.unwrap();
    assert!(!bench.cwd.join("AGENTS.md").exists());
    let text = std::fs::read_to_string(bench.cwd.join(".tinkerbell/config.toml")).unwrap();
    assert!(text.contains("\n# command = "), "{text}");
    assert!(config::read_project(&bench.cwd).unwrap().part.is_some());
}

#[tokio::test]
async fn outside_a_repository_and_through_a_link_nothing_is_written() {
    let (bench, heard) = (Bench::new(), Heard::new());
    let fault = init(&bench.shop(), true, &heard.out).await.unwrap_err();
    assert_eq!((fault.code.0, fault.exit), ("TB-INIT-001", exit::USAGE));
    assert!(fault.hints.iter().any(|hint| hint.contains("git init")));
    bench.write("work/.git/HEAD", "");
    std::os::unix::fs::symlink("/tmp", bench.cwd.join(".tinkerbell")).unwrap();
    assert_eq!(init(&bench.shop(), true, &heard.out).await.unwrap_err().code.0, "TB-INIT-002");
    let gone = Shop { cwd: None, ..bench.shop() };
    assert_eq!(init(&gone, true, &heard.out).await.unwrap_err().code.0, "TB-INIT-002");
}
