//! The value itself.
//!
//! It has no text form, is copied only where somebody writes so, and is overwritten when it goes.
//! What the allocator moved before the value came here, and copies that others make of an exposed
//! one, are out of reach. Invariant: nothing but `expose` gives the content away.

use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// A secret that several holders share; cloning copies no bytes.
pub type Shared = Arc<Secret<String>>;

/// A secret and the name under which people know it.
pub type Named = (String, Shared);

/// Gives the value of a secret by its name, as it is now.
pub type Lookup = Arc<dyn Fn(&str) -> Option<Shared> + Send + Sync>;

/// A value that must not be shown.
///
/// It can be compared and moved; it can be neither printed nor written down.
///
/// ```compile_fail
/// println!("{}", tinkerbell_secret::Secret::new(String::from("x")));
/// ```
///
/// ```compile_fail
/// let secret = tinkerbell_secret::Secret::new(String::from("x"));
/// let _copy = secret.clone();
/// ```
#[derive(PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes a value in.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that needs it: a request's header, a pipe to a process.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// Takes a text in, to be shared.
    #[must_use]
    pub fn shared(value: impl Into<String>) -> Shared {
        Arc::new(Self(value.into()))
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_show_itself() {
        let secret = Secret::new("hunter2-hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        assert_eq!(secret.expose(), "hunter2-hunter2");
        assert_ne!(secret, Secret::new("other".to_owned()));
    }

    #[test]
    fn its_bytes_are_overwritten_when_it_goes() {
        use std::sync::Mutex;
        struct Spy<'a>(Vec<u8>, &'a Mutex<Vec<u8>>);
        impl Zeroize for Spy<'_> {
            fn zeroize(&mut self) {
                self.0.iter_mut().for_each(Zeroize::zeroize);
                self.1.lock().unwrap().clone_from(&self.0);
            }
        }
        let seen = Mutex::new(vec![9]);
        drop(Secret::new(Spy(b"abc".to_vec(), &seen)));
        assert_eq!(*seen.lock().unwrap(), [0, 0, 0]);
    }
}
