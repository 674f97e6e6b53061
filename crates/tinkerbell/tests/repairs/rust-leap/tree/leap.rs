//! Says for each year given whether it is a leap year.

fn is_leap(year: u32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn main() {
    for word in std::env::args().skip(1) {
        let year: u32 = word.parse();
        println!("{year} {}", if is_leap(year) { "leap" } else { "common" });
    }
}
