//! Walls: what a hostile command tries from the shell, and what an honest one needs.

use crate::both;
use crate::house::*;
use tinkerbell_core::port::{Level, Sandbox};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_self_test_reports_each_check() {
    for level in [Level::Full, Level::Landlock] {
        let Some(house) = House::at(level).await else { continue };
        let report = house.sandbox.probe_report().await.unwrap();
        for (name, checks) in [("full", &report.full), ("landlock", &report.landlock)] {
            for check in checks {
                eprintln!("{name}: {} {}: {}", if check.passed { "ok" } else { "FAILED" }, check.name, check.text);
            }
        }
        assert!(report.full.len() > 10 || report.landlock.len() > 10);
        assert_eq!(house.sandbox.level().await.unwrap(), level);
    }
}
