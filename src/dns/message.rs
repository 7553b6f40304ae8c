//! As much of DNS messages as a name server needs that only answers for its own names (RFC 1035, RFC 6891).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::{
    CLASS, Label, Name, OPCODE, Packet, PacketFlag, QCLASS, RCODE, ResourceRecord,
    rdata::{PTR, RData},
};
pub use simple_dns::{QTYPE, TYPE};

/// What Docker's name server gives.
const TTL: u32 = 600;
const HEADER: usize = 12;
const SMALLEST_LIMIT: usize = 512;
const LONGEST_LABEL: usize = 63;

/// Of the third byte of a header.
const RESPONSE: u8 = 0x80;
const OPCODE_BITS: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;

/// Of the fourth.
const RECURSION_AVAILABLE: u8 = 0x80;
const SERVER_FAILURE: u8 = 2;

/// A client's question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name, lower case, without trailing dot.
    pub name: String,
    /// The record type.
    pub kind: QTYPE,
    /// How long an answer over UDP may be.
    pub limit: usize,
    id: u16,
    recursion_desired: bool,
    asked: simple_dns::Question<'static>,
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
        // Asked first: what a section is said to hold is reserved in memory.
        let [questions, answers, authorities, additional] = sections(packet)?;
        if questions != 1 || answers != 0 || authorities != 0 || additional > 1 {
            return None;
        }
        let packet = Packet::parse(packet).ok()?;
        let asked = packet.questions.first()?.clone().into_owned();
        let is_plain = packet.opcode() == OPCODE::StandardQuery && !packet.has_flags(PacketFlag::RESPONSE);
        if !is_plain || asked.qclass != QCLASS::CLASS(CLASS::IN) {
            return None;
        }
        let limit = packet.opt().map_or(SMALLEST_LIMIT, |opt| usize::from(opt.udp_packet_size).max(SMALLEST_LIMIT));
        let labels = asked.qname.get_labels().iter().map(|label| String::from_utf8_lossy(label.as_ref()));
        Some(Self {
            name: labels.collect::<Vec<_>>().join(".").to_lowercase(),
            kind: asked.qtype,
            limit,
            id: packet.id(),
            recursion_desired: packet.has_flags(PacketFlag::RECURSION_DESIRED),
            asked,
        })
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
        let whole = self.response(answers, PacketFlag::empty());
        if whole.len() <= limit || answers.is_empty() {
            return whole;
        }
        // Several answers are addresses of one family, and as long as each other.
        let without_any = self.response(&[], PacketFlag::empty()).len();
        let fit = answers.len() * limit.saturating_sub(without_any) / (whole.len() - without_any);
        self.response(&answers[..fit], PacketFlag::TRUNCATION)
    }

    fn response(&self, answers: &[Answer], flags: PacketFlag) -> Vec<u8> {
        let mut packet = Packet::new_reply(self.id);
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE | flags);
        if self.recursion_desired {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        packet.questions.push(self.asked.clone());
        let record = |answer| ResourceRecord::new(self.asked.qname.clone(), CLASS::IN, TTL, data(answer));
        packet.answers.extend(answers.iter().map(record));
        packet.build_bytes_vec_compressed().expect("a vector takes all that is written to it")
    }
}

/// The answer to a packet when nobody could be asked. It needs no more than a header, so that it is there for types that we do not know;
/// `None` if the packet is itself an answer.
pub fn server_failure(packet: &[u8]) -> Option<Vec<u8>> {
    let [questions, ..] = sections(packet)?;
    if packet[2] & RESPONSE != 0 {
        return None;
    }
    // Resolvers take an answer for theirs only if it has their question.
    let question = if questions == 1 { first_question(packet) } else { None };
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&packet[..2]);
    answer[2] = RESPONSE | (packet[2] & (OPCODE_BITS | RECURSION_DESIRED));
    answer[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
    answer[5] = u8::from(question.is_some());
    answer.extend_from_slice(question.unwrap_or_default());
    Some(answer)
}

/// Whether an answer says that another server should be asked.
pub fn is_failure(packet: &[u8]) -> bool {
    let code = packet.get(3).map(|flags| RCODE::from(u16::from(flags & 0x0f)));
    matches!(code, None | Some(RCODE::ServerFailure | RCODE::Refused))
}

/// Whether `packet` is an answer to `question`, by its number.
pub fn answers(packet: &[u8], question: &[u8]) -> bool {
    packet.len() >= HEADER && packet[..2] == question[..2] && packet[2] & RESPONSE != 0
}

/// How many questions, answers, authorities and additional records a packet says that it holds.
fn sections(packet: &[u8]) -> Option<[u16; 4]> {
    let header = packet.get(..HEADER)?;
    Some([4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]])))
}

/// The first question as it came: its name, which nothing before it can shorten, its type and its class.
fn first_question(packet: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    loop {
        let length = usize::from(*packet.get(end)?);
        end += 1 + length;
        match length {
            0 => return packet.get(HEADER..end + 4),
            1..=LONGEST_LABEL => {}
            _ => return None,
        }
    }
}

fn data(answer: &Answer) -> RData<'_> {
    match answer {
        Answer::Address(IpAddr::V4(address)) => RData::A((*address).into()),
        Answer::Address(IpAddr::V6(address)) => RData::AAAA((*address).into()),
        Answer::Name(name) => RData::PTR(PTR(name_of(name))),
    }
}

/// A label that is too long is cut: a container may be called so.
fn name_of(text: &str) -> Name<'_> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let labels: Vec<_> =
        labels.map(|label| Label::new_unchecked(&label.as_bytes()[..label.len().min(LONGEST_LABEL)])).collect();
    Name::new_with_labels(&labels)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A question as a stub resolver sends it.
    pub fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(simple_dns::Question::new(name_of(name), kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    /// The same of a type that nobody knows.
    pub fn question_of_unknown_type(name: &str) -> Vec<u8> {
        let mut packet = question(name, TYPE::A);
        let at = packet.len() - 4;
        packet[at..at + 2].copy_from_slice(&65280u16.to_be_bytes());
        packet
    }

    #[test]
    fn a_failure_is_told_of_any_question() {
        let unknown = question_of_unknown_type("web");
        assert!(Question::parse(&unknown).is_none());
        let failure = server_failure(&unknown).unwrap();
        assert_eq!(failure[..12], [0x12, 0x34, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(failure[12..], unknown[12..]);

        let cut = server_failure(&unknown[..15]).unwrap();
        assert_eq!(cut, [0x12, 0x34, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(server_failure(&unknown[..11]).is_none());
        assert!(server_failure(&failure).is_none(), "an answer gets none");
    }

    #[test]
    fn a_question_is_read() {
        let question = Question::parse(&question("Web.Example", TYPE::AAAA)).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.limit), ("web.example", TYPE::AAAA.into(), 512));
    }

    #[test]
    fn room_for_a_longer_answer_is_seen() {
        let mut packet = question("web", TYPE::A);
        packet[11] = 1;
        packet.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Question::parse(&packet).unwrap().limit, 4096);
    }

    #[test]
    fn answers_carry_number_question_and_records() {
        let packet = question("web", TYPE::A);
        let answer = Question::parse(&packet).unwrap().answer(&[Answer::Address("172.18.0.2".parse().unwrap())], 512);
        assert!(super::answers(&answer, &packet));
        assert_eq!(answer[2..8], [0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[answer.len() - 4..], [172, 18, 0, 2]);
        assert_eq!(answer[answer.len() - 10..answer.len() - 6], 600u32.to_be_bytes());
    }

    #[test]
    fn what_does_not_fit_is_marked_as_cut() {
        let question = Question::parse(&question("web", TYPE::A)).unwrap();
        let many: Vec<Answer> = (0..60).map(|n| Answer::Address(Ipv4Addr::new(10, 0, 0, n).into())).collect();
        let answer = question.answer(&many, question.limit);
        assert!(answer.len() <= 512 && answer[2] & 0x02 != 0);
        assert!(question.answer(&many, 65535)[2] & 0x02 == 0);
    }

    #[test]
    fn reverse_names_are_addresses() {
        let parse = |name: &str| Question::parse(&question(name, TYPE::PTR)).unwrap().reverse_address();
        assert_eq!(parse("2.0.18.172.in-addr.arpa"), Some("172.18.0.2".parse().unwrap()));
        let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(parse(six), Some("fd00::2".parse().unwrap()));
        assert_eq!(parse("18.172.in-addr.arpa"), None);
    }

    #[test]
    fn garbage_is_no_question() {
        assert!(Question::parse(&[]).is_none());
        assert!(Question::parse(&[0; 12]).is_none());
        let mut cut = question("web", TYPE::A);
        cut.truncate(15);
        assert!(Question::parse(&cut).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut with_edns = question("1.2.0.192.in-addr.arpa", TYPE::PTR);
        with_edns[11] = 1;
        with_edns.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        let records = [Answer::Address(Ipv4Addr::LOCALHOST.into()), Answer::Name("a.b".to_owned())];
        crate::model::fuzz::each(&[&question("web.example", TYPE::A), &with_edns, &question("", TYPE::MX)], |input| {
            if let Some(question) = Question::parse(input) {
                let _address = question.reverse_address();
                assert!(question.answer(&records, question.limit).len() <= question.limit.max(input.len()));
            }
            if let Some(failure) = server_failure(input) {
                assert!(answers(&failure, input) && is_failure(&failure) && failure.len() <= input.len());
            }
        });
    }
}
