//! What is learned of repositories, and how little a hostile one can teach.

use super::*;

struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// What is left of a text after `…/.git` was looked at.
    fn after(&self, dot_git: &str, text: &str) -> String {
        let known = Known::new();
        GitFiles::default().learn(&known, &self.path(dot_git).join("config"));
        known.redact(text).replace("[secret git credential]", "*")
    }
}

fn remote(password: &str) -> String {
    format!("[remote \"o\"]\n\turl = https://me:{password}@host/x\n")
}

#[test]
fn a_changed_file_is_read_again_and_old_values_stay_known() {
    let house = Repository::new();
    let (files, known) = (GitFiles::default(), Known::new());
    files.learn(&known, &house.path("config"));
    for password in ["first-password", "second-password"] {
        house.put("config", remote(password));
        files.learn(&known, &house.path("config"));
        files.learn(&known, &house.path("config"));
    }
    assert_eq!(known.redact("first-password second-password"), "[secret git credential] [secret git credential]");
}

#[test]
fn a_byte_that_is_no_text_hides_nothing() {
    let house = Repository::new();
    house.put(".git/config", [b"[user]\n\tname = J\xf6rg\n", remote("the-password").as_bytes()].concat());
    assert_eq!(house.after(".git", "the-password"), "*");
}

#[test]
fn all_files_that_git_reads_are_read() {
    let house = Repository::new();
    house.put(".git/config", format!("[include] path = more/extra\n{}", remote("password-1")));
    house.put(".git/more/extra", remote("password-2"));
    house.put(".git/config.worktree", remote("password-3"));
    house.put(".git/modules/lib/config", remote("password-4"));
    house.put(".git/modules/a/b/config", remote("password-5"));
    house.put(".git/modules/lib/modules/inner/config", remote("password-6"));
    house.put(".git/worktrees/side/config.worktree", remote("password-7"));
    house.put(".git/worktrees/side/commondir", "../..\n");
    for at in 0..200 {
        house.put(&format!(".git/worktrees/task{at}/commondir"), "../..\n");
    }
    house.put("side/.git", format!("gitdir: {}\n", house.path(".git/worktrees/side").display()));
    house.put("lib/.git", "gitdir: ../.git/modules/lib\n");
    let all: Vec<String> = (1..=7).map(|at| format!("password-{at}")).collect();
    assert_eq!(house.after(".git", &all.join(" ")), "* * * * * * *");
    assert_eq!(house.after("side/.git", &all.join(" ")), "* * * * * * *", "a linked worktree");
    assert_eq!(house.after("lib/.git", "password-4 password-6"), "* *", "a submodule");
}

#[test]
fn what_leads_elsewhere_or_in_circles_is_not_followed() {
    let house = Repository::new();
    house.put("outside", remote("password-of-others"));
    house.put(".git/config", format!("[include]\n\tpath = ../outside\n\tpath = {}\n\tpath = link\n", house.path("outside").display()));
    std::os::unix::fs::symlink("../outside", house.path(".git/link")).unwrap();
    assert_eq!(house.after(".git", "password-of-others"), "password-of-others");
    house.put("a/.git", "gitdir: ../a/.git\n").put("b/.git", "gitdir: \n").put("c/.git", "gitdir: ../d\n").put("d/commondir", "../d\n");
    house.put("d/config", format!("[include] path = config\n{}", remote("its-own-password")));
    std::fs::create_dir_all(house.path("d/modules")).unwrap();
    std::os::unix::fs::symlink("..", house.path("d/modules/loop")).unwrap();
    assert_eq!((house.after("a/.git", "x"), house.after("b/.git", "x")), ("x".to_owned(), "x".to_owned()));
    assert_eq!(house.after("c/.git", "its-own-password"), "*");
}

#[test]
fn a_hostile_file_teaches_little() {
    let house = Repository::new();
    let long = "one-long-password".repeat(8_200);
    house.put(".git/config", format!("{}{}{}", remote(&long), remote("--------"), remote("abcabcabc")));
    let text = format!("{} -------- abcabcabc", &long[..100]);
    assert_eq!(house.after(".git", &text), text, "139,400 bytes, and those that draw lines");
    let many: String = (0..1_000).map(|at| remote(&format!("password-number-{at:04}"))).collect();
    house.put(".git/config", &many);
    let known = Known::new();
    GitFiles::default().learn(&known, &house.path(".git/config"));
    assert_eq!(known.values().len(), MOST_VALUES);
    let wide: String = (0..64).map(|at| remote(&format!("{at:04}{}", "wxyz".repeat(1_000)))).collect();
    house.put(".git/config", &wide);
    let known = Known::new();
    GitFiles::default().learn(&known, &house.path(".git/config"));
    let bytes: usize = known.values().iter().map(|(_, value)| value.expose().len()).sum();
    assert!(bytes <= MOST_VALUE_BYTES && known.redactor().memory() < 32 << 20, "{bytes}");
    // What stood there first stays known.
    house.put(".git/config", format!("{}{many}{wide}", remote("the-users-password")));
    assert_eq!(house.after(".git", "the-users-password"), "*");
    for at in 0..2_000 {
        house.put(&format!(".git/modules/m{at}/config"), remote("x"));
    }
    assert!(files_of(&house.path(".git")).len() <= MOST_OF_ONE);
}

#[test]
fn what_another_repository_drove_out_is_learned_again() {
    let (mine, other) = (Repository::new(), Repository::new());
    mine.put(".git/config", remote("my-own-password"));
    let (files, known) = (GitFiles::default(), Known::new());
    files.learn(&known, &mine.path(".git/config"));
    for round in 0..8 {
        let wide: String = (0..16).map(|at| remote(&format!("{round}{at:04}{}", "w%20x\"yz".repeat(400)))).collect();
        other.put(".git/config", wide);
        files.learn(&known, &other.path(".git/config"));
        if known.forgotten() > 0 {
            break;
        }
    }
    assert!(known.forgotten() > 0);
    files.learn(&known, &mine.path(".git/config"));
    assert_eq!(known.redact("my-own-password"), "[secret git credential]");
}
