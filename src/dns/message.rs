//! As much of DNS messages as a name server needs that only answers for its own names (RFC 1035, RFC 6891).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Record type of an IPv4 address.
pub const A: u16 = 1;
/// Record type of a name behind an address.
pub const PTR: u16 = 12;
/// Record type of a mail server.
pub const MX: u16 = 15;
/// Record type of an IPv6 address.
pub const AAAA: u16 = 28;

/// What Docker's name server gives.
const TTL: u32 = 600;
const HEADER: usize = 12;
const INTERNET: u16 = 1;
const OPT: u16 = 41;
const SMALLEST_LIMIT: usize = 512;
const LONGEST_LABEL: u8 = 63;

/// Response code: the server could not find out.
const SERVER_FAILURE: u8 = 2;
/// Response code: the server will not.
const REFUSED: u8 = 5;

/// A client's question. The packet is kept as it came, to be relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, lower case, without trailing dot.
    pub name: String,
    /// The record type.
    pub kind: u16,
    /// How long an answer over UDP may be.
    pub limit: usize,
    head: Vec<u8>,
}

/// One answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An A or AAAA record.
    Address(IpAddr),
    /// A PTR record.
    Name(String),
}

impl Question {
    /// Reads a packet; `None` if it is not a plain question in the Internet class.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..HEADER)?;
        let is_plain_query = header[2] & 0xf8 == 0;
        let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(|at| u16_at(header, at).unwrap_or(0));
        if !is_plain_query || questions != 1 || answers != 0 || authorities != 0 {
            return None;
        }
        let (name, end) = read_name(packet, HEADER)?;
        let kind = u16_at(packet, end)?;
        if u16_at(packet, end + 2)? != INTERNET {
            return None;
        }
        let end = end + 4;
        let limit = if additional == 0 { SMALLEST_LIMIT } else { edns_limit(packet, end).unwrap_or(SMALLEST_LIMIT) };
        Some(Self { name, kind, limit, head: packet[..end].to_vec() })
    }

    /// The address that a PTR question asks for.
    pub fn reverse_address(&self) -> Option<IpAddr> {
        if let Some(digits) = self.name.strip_suffix(".in-addr.arpa") {
            let mut parts: Vec<u8> = digits.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
            parts.reverse();
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(parts).ok()?).into());
        }
        let digits = self.name.strip_suffix(".ip6.arpa")?;
        let nibbles: Vec<u8> =
            digits.split('.').map(|digit| u8::from_str_radix(digit, 16)).collect::<Result<_, _>>().ok()?;
        if nibbles.len() != 32 || nibbles.iter().any(|nibble| *nibble > 15) {
            return None;
        }
        let value = nibbles.iter().rev().fold(0u128, |value, nibble| value << 4 | u128::from(*nibble));
        Some(Ipv6Addr::from(value).into())
    }

    /// An authoritative answer; none at all says that the name is there without records of this type.
    /// What is longer than `limit` is left out and marked as cut.
    pub fn answer(&self, answers: &[Answer], limit: usize) -> Vec<u8> {
        let mut packet = self.response(0);
        let mut count = 0u16;
        for answer in answers {
            let record = record(answer);
            if packet.len() + record.len() > limit {
                packet[2] |= 0x02;
                break;
            }
            packet.extend(record);
            count += 1;
        }
        packet[6..8].copy_from_slice(&count.to_be_bytes());
        packet
    }

    /// The answer when nobody could be asked.
    pub fn server_failure(&self) -> Vec<u8> {
        self.response(SERVER_FAILURE)
    }

    fn response(&self, code: u8) -> Vec<u8> {
        let mut packet = self.head.clone();
        let recursion_desired = packet[2] & 0x01;
        packet[2] = 0x80 | recursion_desired;
        packet[3] = 0x80 | code;
        packet[6..HEADER].fill(0);
        packet
    }
}

/// Whether an answer says that another server should be asked.
pub fn is_failure(packet: &[u8]) -> bool {
    packet.get(3).is_none_or(|flags| matches!(flags & 0x0f, SERVER_FAILURE | REFUSED))
}

/// Whether `packet` is an answer to `question`, by its number.
pub fn answers(packet: &[u8], question: &[u8]) -> bool {
    packet.len() >= HEADER && packet[..2] == question[..2] && packet[2] & 0x80 != 0
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

/// The name at `at` and where it ends. Questions of real clients hold no compression pointers.
fn read_name(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = *packet.get(at)?;
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > LONGEST_LABEL {
            return None;
        }
        let label = packet.get(at..at + usize::from(length))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        at += usize::from(length);
    }
}

/// How much the client can take, if the record after the question is an OPT record.
fn edns_limit(packet: &[u8], at: usize) -> Option<usize> {
    let is_opt = *packet.get(at)? == 0 && u16_at(packet, at + 1)? == OPT;
    is_opt.then_some(usize::from(u16_at(packet, at + 3)?).max(SMALLEST_LIMIT))
}

fn record(answer: &Answer) -> Vec<u8> {
    let (kind, data) = match answer {
        Answer::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
        Answer::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
        Answer::Name(name) => (PTR, write_name(name)),
    };
    let mut record = vec![0xc0, HEADER as u8]; // the name is the question's
    record.extend(kind.to_be_bytes());
    record.extend(INTERNET.to_be_bytes());
    record.extend(TTL.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    record.extend(data);
    record
}

fn write_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(usize::from(LONGEST_LABEL))];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A question as a stub resolver sends it.
    pub fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(write_name(name));
        packet.extend(kind.to_be_bytes());
        packet.extend(INTERNET.to_be_bytes());
        packet
    }

    #[test]
    fn a_question_is_read() {
        let question = Question::parse(&question("Web.Example", AAAA)).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.limit), ("web.example", AAAA, 512));
    }

    #[test]
    fn room_for_a_longer_answer_is_seen() {
        let mut packet = question("web", A);
        packet[11] = 1;
        packet.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Question::parse(&packet).unwrap().limit, 4096);
    }

    #[test]
    fn answers_carry_number_question_and_records() {
        let packet = question("web", A);
        let answer = Question::parse(&packet).unwrap().answer(&[Answer::Address("172.18.0.2".parse().unwrap())], 512);
        assert!(super::answers(&answer, &packet));
        assert_eq!(answer[2..8], [0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[answer.len() - 4..], [172, 18, 0, 2]);
        assert_eq!(answer[answer.len() - 10..answer.len() - 6], 600u32.to_be_bytes());
    }

    #[test]
    fn what_does_not_fit_is_marked_as_cut() {
        let question = Question::parse(&question("web", A)).unwrap();
        let many: Vec<Answer> = (0..60).map(|n| Answer::Address(Ipv4Addr::new(10, 0, 0, n).into())).collect();
        let answer = question.answer(&many, question.limit);
        assert!(answer.len() <= 512 && answer[2] & 0x02 != 0);
        assert!(question.answer(&many, 65535)[2] & 0x02 == 0);
    }

    #[test]
    fn reverse_names_are_addresses() {
        let parse = |name: &str| Question::parse(&question(name, PTR)).unwrap().reverse_address();
        assert_eq!(parse("2.0.18.172.in-addr.arpa"), Some("172.18.0.2".parse().unwrap()));
        let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(parse(six), Some("fd00::2".parse().unwrap()));
        assert_eq!(parse("18.172.in-addr.arpa"), None);
    }

    #[test]
    fn garbage_is_no_question() {
        assert!(Question::parse(&[]).is_none());
        assert!(Question::parse(&[0; 12]).is_none());
        let mut cut = question("web", A);
        cut.truncate(15);
        assert!(Question::parse(&cut).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut with_edns = question("1.2.0.192.in-addr.arpa", PTR);
        with_edns[11] = 1;
        with_edns.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        let records = [Answer::Address(Ipv4Addr::LOCALHOST.into()), Answer::Name("a.b".to_owned())];
        crate::model::fuzz::each(&[&question("web.example", A), &with_edns, &question("", MX)], |input| {
            if let Some(question) = Question::parse(input) {
                let _address = question.reverse_address();
                assert!(question.answer(&records, question.limit).len() <= question.limit.max(input.len()));
                assert!(answers(&question.server_failure(), input) && is_failure(&question.server_failure()));
            }
        });
    }
}
