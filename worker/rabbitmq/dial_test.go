package rabbitmq

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/iotest"
)

// stream is a connection with what a broker sends.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// What comes from a broker comes through, however it is cut, with nothing but the types changed. What is malformed comes through as it is.
func TestLenient(t *testing.T) {
	frame := func(kind byte, payload string) string {
		b := []byte{kind, 0, 1}
		b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
		return string(b) + payload + "\xce"
	}
	long := func(text string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text }
	properties := func(table string) string {
		return "\x00\x3c\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x03" + "\xe0\x00" + "\x01L" + "\x02LL" + long(table)
	}
	const eight = "LLLLLLLL"
	// deep is what a table, or an array, holds that has so many in each other, the innermost as a type.
	deep := func(kind string, levels int, innermost string) (text string) {
		for range levels {
			text = innermost + long(text)
			if kind == "F" {
				text = "\x00" + text
			}
			innermost = kind
		}
		return text
	}
	for name, c := range map[string][2]string{
		"a method":          {frame(1, "L"+eight), frame(1, "L"+eight)},
		"a body":            {frame(3, "\x01aL"+eight), frame(3, "\x01aL"+eight)},
		"a number":          {frame(2, properties("\x01LL"+eight+"\x01bS"+long("L"))), frame(2, properties("\x01Ll"+eight+"\x01bS"+long("L")))},
		"inside":            {frame(2, properties("\x01aA"+long("L"+eight+"F"+long("\x01aL"+eight))+"\x01bL"+eight)), frame(2, properties("\x01aA"+long("l"+eight+"F"+long("\x01al"+eight))+"\x01bl"+eight))},
		"deep tables":       {frame(2, properties(deep("F", deepest, "F")+"\x01LL"+eight)), frame(2, properties(deep("F", deepest, "F")+"\x01Ll"+eight))},
		"deeper tables":     {frame(2, properties(deep("F", deepest+1, "F")+"\x01LL"+eight)), frame(2, properties(deep("F", deepest+1, "x")+"\x01Ll"+eight))},
		"deep arrays":       {frame(2, properties("\x01aA"+long(deep("A", deepest-1, "A")))), frame(2, properties("\x01aA"+long(deep("A", deepest-1, "A"))))},
		"deeper arrays":     {frame(2, properties("\x01aA"+long(deep("A", deepest, "A")))), frame(2, properties("\x01aA"+long(deep("A", deepest, "x"))))},
		"cut short":         {frame(2, properties("\x01aL"+eight[:3])), frame(2, properties("\x01al"+eight[:3]))},
		"no type":           {frame(2, properties("\x01aQL")), frame(2, properties("\x01aQL"))},
		"a length too long": {frame(2, properties("\x01aS\xff\xff\xff\xffL")), frame(2, properties("\x01aS\xff\xff\xff\xffL"))},
		"no frame":          {"AMQP\x00\x00\x09\x01", "AMQP\x00\x00\x09\x01"},
		"a piece":           {"\x02\x00", "\x02\x00"},
	} {
		for cut, reader := range map[string]io.Reader{
			"whole": bytes.NewReader([]byte(c[0] + c[0])), "in bytes": iotest.OneByteReader(bytes.NewReader([]byte(c[0] + c[0]))),
		} {
			got, err := io.ReadAll(&lenient{Conn: stream{Reader: reader}, in: bufio.NewReader(reader)})
			if want := c[1] + c[1]; string(got) != want && name != "no frame" && name != "a piece" || len(got) != 2*len(c[0]) {
				t.Errorf("%s, %s: %q, %v; want %q", name, cut, got, err, want)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		b := make([]byte, random.IntN(60))
		for i := range b {
			b[i] = []byte{0, 0, 0, 1, 2, 0xe0, 'L', 'A', 'F', 'S', 'l', 't', 20}[random.IntN(13)]
		}
		before := slices.Clone(b)
		lenientProperties(b)
		for i := range b {
			if b[i] != before[i] && (before[i] != 'L' || b[i] != 'l') {
				t.Fatalf("%q became %q", before, b)
			}
		}
	}
}
