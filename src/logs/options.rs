//! `LogConfig`: which driver and options there are, and dockerd's words for those that are wrong.
//!
//! dockerd knows two moments: at create it refuses unknown drivers and option names (400), at start values that
//! cannot be read (500).

use crate::model::{Error, Result, container::LogConfig};

/// The drivers that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Docker's default.
    JsonFile,
    /// As `json-file`, with rotation.
    Local,
    /// Keeps nothing.
    None,
}

impl Driver {
    /// The driver that `config` names; `None` if we do not have it. No name is the default.
    pub fn of(config: &LogConfig) -> Option<Self> {
        match config.kind.as_str() {
            "" | "json-file" => Some(Self::JsonFile),
            "local" => Some(Self::Local),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// Values of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which driver.
    pub driver: Driver,
    /// Bytes after which a new file is begun.
    pub max_size: Option<u64>,
    /// How many files there are at most, at least 1.
    pub max_files: u64,
}

/// Checks driver and option names, at create. Answers what the client is to be warned of.
pub fn check(config: &LogConfig) -> Result<Vec<String>> {
    let Some(driver) = Driver::of(config) else {
        let name = &config.kind;
        return Err(Error::invalid(format!("error looking up logging plugin {name}: plugin \"{name}\" not found")));
    };
    check_mode(config)?;
    let (known, hint): (&[&str], _) = match driver {
        Driver::JsonFile => (
            &["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"],
            "for json-file log driver",
        ),
        Driver::Local => (&["max-file", "max-size", "compress"], "for log driver local"),
        Driver::None => return Ok(Vec::new()),
    };
    let of_all_drivers = ["mode", "max-buffer-size"];
    match config.config.keys().find(|name| !known.contains(&name.as_str()) && !of_all_drivers.contains(&name.as_str()))
    {
        Some(name) => Err(Error::invalid(format!("unknown log opt '{name}' {hint}"))),
        None => Ok(warnings(config)),
    }
}

/// `mode=non-blocking` changes nothing here: our writer never holds a container up.
fn check_mode(config: &LogConfig) -> Result<()> {
    let mode = config.config.get("mode").map_or("", String::as_str);
    if !["", "blocking", "non-blocking"].contains(&mode) {
        return Err(Error::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    match config.config.get("max-buffer-size") {
        None => Ok(()),
        Some(_) if mode != "non-blocking" => {
            Err(Error::invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"))
        }
        Some(size) => parse_size(size, 1024)
            .map(drop)
            .map_err(|error| Error::invalid(error.message()).context("error parsing option max-buffer-size")),
    }
}

fn warnings(config: &LogConfig) -> Vec<String> {
    match config.config.get("compress").map(String::as_str).map(parse_bool) {
        Some(Ok(true)) => {
            vec!["Log option compress is not carried out: rotated log files stay uncompressed.".to_owned()]
        }
        _ => Vec::new(),
    }
}

impl Settings {
    /// Reads the values, at start.
    pub fn parse(config: &LogConfig) -> Result<Self> {
        match Driver::of(config) {
            Some(Driver::JsonFile) => Self::json_file(config),
            Some(Driver::Local) => Self::local(config),
            Some(Driver::None) => Ok(Self { driver: Driver::None, max_size: None, max_files: 1 }),
            None => check(config).and(Err(Error::system("no such log driver"))),
        }
    }

    fn json_file(config: &LogConfig) -> Result<Self> {
        let option = |name: &str| config.config.get(name).map(String::as_str);
        let max_size = match option("max-size").map(|size| parse_size(size, 1000)).transpose()? {
            Some(0) => return Err(Error::system("max-size must be a positive number")),
            size => size,
        };
        let max_files = option("max-file").map(parse_int).transpose()?.unwrap_or(1);
        let max_files = u64::try_from(max_files).unwrap_or(0);
        if max_files < 1 {
            return Err(Error::system("max-file cannot be less than 1"));
        }
        let compress = option("compress").map(parse_bool).transpose()?.unwrap_or(false);
        if compress && (max_files < 2 || max_size.is_none()) {
            return Err(Error::system("compress cannot be true when max-file is less than 2 or max-size is not set"));
        }
        Ok(Self { driver: Driver::JsonFile, max_size, max_files })
    }

    fn local(config: &LogConfig) -> Result<Self> {
        let option = |name: &str| config.config.get(name).map(String::as_str);
        let max_size = option("max-size")
            .map(|size| {
                parse_size(size, 1024).map_err(|error| error.context(format!("invalid value for max-size: {size}")))
            })
            .transpose()?
            .unwrap_or(20 << 20);
        let max_files = option("max-file")
            .map(|count| {
                parse_int(count).map_err(|error| error.context(format!("invalid value for max-file: {count}")))
            })
            .transpose()?
            .unwrap_or(5);
        let compress = option("compress")
            .map(|value| parse_bool(value).map_err(|error| error.context("error reading compress log option")))
            .transpose()?
            .unwrap_or(true);
        if max_size == 0 {
            return Err(Error::system("max size must be a positive number"));
        }
        if compress && max_files <= 1 {
            return Err(Error::system("compression cannot be enabled when max file count is 1"));
        }
        Ok(Self {
            driver: Driver::Local,
            max_size: Some(max_size),
            max_files: u64::try_from(max_files).unwrap_or(1).max(1),
        })
    }
}

/// Sizes as go-units reads them: a number, perhaps with a fraction, a letter, perhaps `b` or `ib`.
fn parse_size(text: &str, unit: u64) -> Result<u64> {
    let invalid = || Error::system(format!("invalid size: '{text}'"));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(invalid());
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let letter = suffix.strip_suffix('b').unwrap_or(&suffix);
    let letter = letter.strip_suffix('i').unwrap_or(letter);
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as Go does it"
    )]
    Ok((number * unit.pow(power) as f64) as u64)
}

fn parse_int(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::system(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

fn parse_bool(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Error::system(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::ErrorKind;

    fn config(kind: &str, options: &[(&str, &str)]) -> LogConfig {
        let config = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogConfig { kind: kind.to_owned(), config }
    }

    /// Texts as dockerd 20.10 answered them.
    #[test]
    fn create_refuses_what_dockerd_refuses() {
        for (kind, options, text) in [
            ("json-file", vec![("foo", "bar")], "unknown log opt 'foo' for json-file log driver"),
            ("local", vec![("foo", "bar")], "unknown log opt 'foo' for log driver local"),
            ("xx", vec![], "error looking up logging plugin xx: plugin \"xx\" not found"),
            ("", vec![("mode", "foo")], "logger: logging mode not supported: foo"),
            (
                "",
                vec![("max-buffer-size", "2m")],
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            (
                "",
                vec![("mode", "non-blocking"), ("max-buffer-size", "zz")],
                "error parsing option max-buffer-size: invalid size: 'zz'",
            ),
        ] {
            let error = check(&config(kind, &options)).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidParameter, text));
        }
        assert_eq!(check(&config("", &[("max-size", "abc")])).unwrap(), Vec::<String>::new());
        assert_eq!(check(&config("", &[("compress", "true")])).unwrap().len(), 1);
    }

    #[test]
    fn start_refuses_what_dockerd_refuses() {
        for (kind, options, text) in [
            ("", vec![("max-size", "abc")], "invalid size: 'abc'"),
            ("", vec![("max-size", "-1")], "invalid size: '-1'"),
            ("", vec![("max-size", "0")], "max-size must be a positive number"),
            ("", vec![("max-file", "0")], "max-file cannot be less than 1"),
            ("", vec![("max-file", "x")], "strconv.Atoi: parsing \"x\": invalid syntax"),
            ("", vec![("compress", "maybe")], "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            (
                "",
                vec![("compress", "true")],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
            ("local", vec![("max-size", "abc")], "invalid value for max-size: abc: invalid size: 'abc'"),
            (
                "local",
                vec![("max-file", "x")],
                "invalid value for max-file: x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("local", vec![("max-file", "0")], "compression cannot be enabled when max file count is 1"),
            (
                "local",
                vec![("compress", "maybe")],
                "error reading compress log option: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(Settings::parse(&config(kind, &options)).unwrap_err().message(), text);
        }
        let settings = Settings::parse(&config("", &[("max-size", "1.5kB"), ("max-file", "3")])).unwrap();
        assert_eq!((settings.max_size, settings.max_files), (Some(1500), 3));
    }
}
