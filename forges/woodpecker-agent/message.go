package main

import "encoding/binary"

// message is a protobuf message that is being written.
type message []byte

func (m *message) putBytes(field int, value []byte) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|2)
	*m = binary.AppendUvarint(*m, uint64(len(value)))
	*m = append(*m, value...)
}

func (m *message) putText(field int, value string) { m.putBytes(field, []byte(value)) }

func (m *message) putNumber(field int, value int64) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3)
	*m = binary.AppendUvarint(*m, uint64(value))
}

func (m *message) putTruth(field int, value bool) {
	if value {
		m.putNumber(field, 1)
	}
}

// entry is one of a map of texts.
func (m *message) entry(field int, key, value string) {
	pair := message{}
	pair.putText(1, key)
	pair.putText(2, value)
	m.putBytes(field, pair)
}

// parsed is a message that was read: of each field the last value, a number as its varint.
type parsed map[int][]byte

func fields(text []byte) parsed {
	found := parsed{}
	for len(text) > 0 {
		key, size := binary.Uvarint(text)
		if size <= 0 {
			return found
		}
		text = text[size:]
		value, size := binary.Uvarint(text)
		if size <= 0 {
			return found
		}
		if key&7 == 0 {
			found[int(key>>3)] = text[:size]
			text = text[size:]
			continue
		}
		text = text[size:]
		if key&7 != 2 || value > uint64(len(text)) {
			return found
		}
		found[int(key>>3)] = text[:value]
		text = text[value:]
	}
	return found
}

func (p parsed) bytes(field int) []byte { return p[field] }

func (p parsed) text(field int) string { return string(p[field]) }

func (p parsed) number(field int) int64 {
	value, _ := binary.Uvarint(p[field])
	return int64(value)
}
