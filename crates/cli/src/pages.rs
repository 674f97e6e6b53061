//! The error pages, carried in the binary.
//!
//! Only finds and suggests. Invariant: each code of this release has its page here.

/// Code and page, sorted by code.
static PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The page of a code, however its letters are written; a bare `router-1` will do too.
pub fn page(code: &str) -> Option<&'static str> {
    let wanted = normal(code);
    PAGES.iter().find(|(code, _)| *code == wanted).map(|(_, page)| *page)
}

/// Codes of the same area, for a code that has no page.
pub fn near(code: &str) -> Vec<&'static str> {
    let wanted = normal(code);
    let area = wanted.rsplit_once('-').map_or(wanted.as_str(), |(area, _)| area);
    if area.len() <= "TB-".len() {
        return Vec::new();
    }
    PAGES.iter().map(|(code, _)| *code).filter(|code| code.starts_with(area)).collect()
}

fn normal(code: &str) -> String {
    let upper = code.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("TB-").unwrap_or(&upper);
    match bare.rsplit_once('-') {
        Some((area, number)) => format!("TB-{area}-{number:0>3}"),
        None => format!("TB-{bare}-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_however_the_code_is_written() {
        for code in ["TB-API-001", "tb-api-001", "api-1"] {
            assert!(page(code).is_some_and(|page| page.starts_with("# TB-API-001")), "{code}");
        }
        assert_eq!(page("TB-API-999"), None);
        assert!(near("TB-API-999").contains(&"TB-API-001"));
        assert!(near("api").contains(&"TB-API-001"));
        assert!(near("").is_empty());
    }

    #[test]
    fn each_code_of_this_crate_and_of_the_door_has_a_page() {
        for code in crate::command::CODES {
            assert!(page(code).is_some(), "{code}");
        }
    }
}
