//! Headers of the tar format as Go's writer makes them: ustar, with PAX records for what does not fit.

use rustix::fs::{FileType, Stat};

/// Tar's unit.
pub const BLOCK: usize = 512;
const LARGEST_ID: u64 = 0o777_7777;
const LARGEST_SIZE: u64 = 0o777_7777_7777;

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    pub name: &'a [u8],
    /// `0` file, `1` hard link, `2` symbolic link, `3` and `4` devices, `5` folder, `6` FIFO.
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    pub link: &'a [u8],
    pub device: (u32, u32),
    /// Value of `security.capability`.
    pub capability: Option<&'a [u8]>,
}

/// Tar's letter for a kind of file; `None` for what tar does not know.
pub fn kind_of(stat: &Stat) -> Option<u8> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(b'0'),
        FileType::Symlink => Some(b'2'),
        FileType::CharacterDevice => Some(b'3'),
        FileType::BlockDevice => Some(b'4'),
        FileType::Directory => Some(b'5'),
        FileType::Fifo => Some(b'6'),
        FileType::Socket | FileType::Unknown => None,
    }
}

impl Header<'_> {
    /// The blocks that stand before the content.
    pub fn encode(&self) -> Vec<u8> {
        let (prefix, name) = split_name(self.name).unwrap_or((b"", cut(self.name)));
        let mut blocks = Vec::with_capacity(BLOCK);
        let records = self.records();
        if !records.is_empty() {
            let name = [b"PaxHeaders.0/", self.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default()].concat();
            let header =
                Header { name: &[], kind: b'x', mode: 0o644, uid: 0, gid: 0, size: records.len() as u64, ..*self };
            blocks.extend(header.block(b"", cut(&name), b""));
            blocks.extend(&records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        blocks.extend(self.block(prefix, name, cut(self.link)));
        blocks
    }

    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if split_name(self.name).is_none() {
            push_record(&mut records, "path", self.name);
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            push_record(&mut records, "linkpath", self.link);
        }
        for (key, number, largest) in [
            ("size", self.size, LARGEST_SIZE),
            ("uid", self.uid.into(), LARGEST_ID),
            ("gid", self.gid.into(), LARGEST_ID),
        ] {
            if number > largest {
                push_record(&mut records, key, number.to_string().as_bytes());
            }
        }
        if self.mtime < 0 {
            push_record(&mut records, "mtime", self.mtime.to_string().as_bytes());
        }
        if let Some(capability) = self.capability {
            push_record(&mut records, "SCHILY.xattr.security.capability", capability);
        }
        records
    }

    fn block(&self, prefix: &[u8], name: &[u8], link: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        let fitting = |number: u64, largest| if number > largest { 0 } else { number };
        octal(&mut block[100..108], self.mode.into());
        octal(&mut block[108..116], fitting(self.uid.into(), LARGEST_ID));
        octal(&mut block[116..124], fitting(self.gid.into(), LARGEST_ID));
        octal(&mut block[124..136], fitting(self.size, LARGEST_SIZE));
        octal(&mut block[136..148], u64::try_from(self.mtime).unwrap_or(0));
        block[156] = self.kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.device.0.into());
        octal(&mut block[337..345], self.device.1.into());
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// `length key=value\n`, where the length counts itself.
fn push_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {key}=").as_bytes());
    records.extend(value);
    records.push(b'\n');
}

/// The name as ustar's prefix and name; `None` if it does not fit.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let end = name.len().min(156);
    let inner = name[..name.len() - 1].get(..end)?;
    let slash = inner.iter().rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (slash > 0 && rest.len() <= 100).then_some((prefix, rest))
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(100)]
}

/// Octal digits that fill the field but for a final zero byte.
fn octal(field: &mut [u8], mut number: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + u8::try_from(number & 7).expect("three bits");
        number >>= 3;
    }
}

/// A number of a header: octal, or GNU's base-256, which Go writes where octal does not fit. Runners that copy
/// Go's whole file mode into the field depend on it.
pub fn parse_number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        let mut significant = field.iter().enumerate().map(|(at, byte)| if at == 0 { byte & 0x7f } else { *byte });
        return significant.try_fold(0u64, |number, byte| number.checked_mul(256)?.checked_add(byte.into()));
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &[u8]) -> Header<'_> {
        Header {
            name,
            kind: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 1,
            link: b"",
            device: (0, 0),
            capability: None,
        }
    }

    fn read_back(bytes: Vec<u8>) -> (Vec<u8>, u64, u64) {
        let mut archive = tar::Archive::new(std::io::Cursor::new(bytes));
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        (entry.path_bytes().into_owned(), entry.header().uid().unwrap(), entry.size())
    }

    #[test]
    fn names_of_every_length_come_back() {
        for length in [1, 99, 100, 101, 155, 156, 200, 255, 256, 300, 1000] {
            for separator in [50, 99, 400] {
                let name: Vec<u8> =
                    (0..length).map(|at| if at % separator == separator - 1 { b'/' } else { b'a' }).collect();
                assert_eq!(read_back(plain(&name).encode()).0, name, "{length} {separator}");
            }
        }
        assert_eq!(read_back(plain("ä".as_bytes()).encode()).0, "ä".as_bytes());
    }

    #[test]
    fn record_length_counts_itself() {
        for length in 80..120 {
            let mut records = Vec::new();
            push_record(&mut records, "path", &vec![b'x'; length]);
            let said: usize = std::str::from_utf8(&records).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, records.len());
        }
    }

    #[test]
    fn large_owners_come_back() {
        let header = Header { uid: 0o1000_0000, gid: u32::MAX, ..plain(b"f") };
        assert_eq!(read_back(header.encode()).1, 0o1000_0000);
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(parse_number(b"0000644\0"), Some(0o644));
        assert_eq!(parse_number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(parse_number(b"\0\0"), Some(0));
        assert_eq!(parse_number(&[0x80, 0, 0, 0, 0x08, 0, 0x01, 0xff]), Some(0o1_000_000_777));
        assert_eq!(parse_number(b"9"), None);
    }
}
