//! The scripted model server as a program: `scripted-llm SCRIPT.jsonl [--listen ADDRESS] [--sequential]`.
//!
//! A tool for development. It prints its base URL on one line and serves until it is killed.

use std::io::Write as _;
use tinkerbell_testkit::llm::{Scripted, Settings, parse_script};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut script = None;
    let mut settings = Settings { models: vec!["scripted".to_owned()], ..Settings::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--sequential" => settings.sequential = true,
            "--listen" => settings.listen = Some(words.next().ok_or("--listen wants an address like 127.0.0.1:8080")?.parse()?),
            _ => script = Some(word),
        }
    }
    let script = script.ok_or("usage: scripted-llm SCRIPT.jsonl [--listen ADDRESS] [--sequential]")?;
    let server = Scripted::start_with(parse_script(&std::fs::read_to_string(script)?)?, settings).await?;
    writeln!(std::io::stdout(), "{}", server.base_url())?;
    std::future::pending::<()>().await;
    Ok(())
}
