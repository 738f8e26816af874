package calendar

import (
	"encoding/binary"
	"fmt"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxICS is how large an iCalendar file may be, in bytes; a ConfigMap holds no more.
const maxICS = 1 << 20

// property is a content line of an iCalendar file, unfolded.
type property struct {
	line       int
	name       string // in upper case
	parameters map[string]string
	value      string
	colon      bool // without one there is no value
}

// plain is the value as it was before it was encoded, by producers of vCalendar 1.0.
func (p property) plain() string {
	if !strings.EqualFold(p.parameters["ENCODING"], quotedPrintable) {
		return p.value
	}
	text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(p.value)))
	if err != nil {
		return p.value
	}
	return string(text)
}

const quotedPrintable = "QUOTED-PRINTABLE"

// component is what is between a BEGIN and its END.
type component struct {
	line       int
	kind       string // in upper case
	properties []property
	components []*component
}

// get returns the only property of a name.
func (c *component) get(name string) (p property, found bool, err error) {
	for _, other := range c.properties {
		switch {
		case other.name != name:
		case !found:
			p, found = other, true
		case other.value != p.value:
			return p, true, fmt.Errorf("line %d: a second %s, after the one in line %d", other.line, name, p.line)
		}
	}
	return p, found, nil
}

// text is the first value of a property of a name, unescaped and made harmless.
func (c *component) text(name string) string {
	for _, p := range c.properties {
		if p.name == name {
			return harmless(unescape(p.plain()))
		}
	}
	return ""
}

// parseICS reads the components of an iCalendar file (RFC 5545 section 3.4). It is lenient where producers are: line ends, blank
// lines, lower case, lines that are not folded. It is not where something may be missing.
func parseICS(text string) ([]*component, error) {
	if len(text) > maxICS {
		return nil, fmt.Errorf("line 1: the file has %d bytes; %d are the most", len(text), maxICS)
	}
	text = strings.TrimPrefix(fromUTF16(text), "\ufeff")
	var roots, open []*component
	line := 0
	for n, rest := 1, text; rest != ""; {
		// A line continues where the next begins with a space.
		raw, number := "", n
		raw, rest = cutLine(rest)
		n++
		if next := rest; next != "" && (next[0] == ' ' || next[0] == '\t') && strings.TrimSpace(raw) != "" {
			var folded strings.Builder
			folded.WriteString(raw)
			for rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
				raw, rest = cutLine(rest)
				folded.WriteString(raw[1:])
				n++
			}
			raw = folded.String()
		}
		if strings.HasSuffix(raw, "=") && strings.Contains(strings.ToUpper(raw), "ENCODING="+quotedPrintable) {
			for strings.HasSuffix(raw, "=") && rest != "" {
				var next string
				next, rest = cutLine(rest)
				raw = strings.TrimSuffix(raw, "=") + next
				n++
			}
		}
		if isBlank(raw) {
			continue
		}
		line = number
		p := parseProperty(raw, number)
		switch {
		case len(open) == 0 && (p.name != "BEGIN" || !strings.EqualFold(p.value, "VCALENDAR")):
			return nil, fmt.Errorf("line %d: not an iCalendar file: BEGIN:VCALENDAR must come here, not %q", number, harmless(raw))
		case p.name == "BEGIN":
			c := &component{line: number, kind: strings.ToUpper(p.value)}
			if len(open) == 0 {
				roots = append(roots, c)
			} else if parent := open[len(open)-1]; len(open) < 8 {
				parent.components = append(parent.components, c)
			} else {
				return nil, fmt.Errorf("line %d: components are nested more than 8 deep", number)
			}
			open = append(open, c)
		case p.name == "END":
			c := open[len(open)-1]
			if !strings.EqualFold(p.value, c.kind) {
				return nil, fmt.Errorf("line %d: END:%s, but line %d began %s: the file is damaged or cut off", number,
					harmless(p.value), c.line, harmless(c.kind))
			}
			open = open[:len(open)-1]
		default:
			c := open[len(open)-1]
			c.properties = append(c.properties, p)
		}
	}
	switch {
	case len(open) > 0:
		c := open[len(open)-1]
		return nil, fmt.Errorf("line %d: the file ends inside of the %s that began in line %d: it is cut off", line, harmless(c.kind), c.line)
	case len(roots) == 0:
		return nil, fmt.Errorf("line 1: the file is empty: not an iCalendar file")
	}
	return roots, nil
}

// isBlank reports whether a line shows nothing: some files end with a NUL or a Control-Z.
func isBlank(line string) bool {
	return strings.TrimFunc(line, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) == ""
}

// fromUTF16 is a text as UTF-8, if it is UTF-16 now, as Windows' editors save it.
func fromUTF16(text string) string {
	var order binary.ByteOrder
	switch {
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "B\x00"):
		order = binary.LittleEndian
	case strings.HasPrefix(text, "\xfe\xff"), strings.HasPrefix(text, "\x00B"):
		order = binary.BigEndian
	default:
		return text
	}
	units := make([]uint16, len(text)/2)
	for i := range units {
		units[i] = order.Uint16([]byte(text[2*i : 2*i+2]))
	}
	return string(utf16.Decode(units))
}

// cutLine cuts text after its first line end, which is CRLF, LF or CR.
func cutLine(text string) (line, rest string) {
	i := strings.IndexAny(text, "\r\n")
	switch {
	case i < 0:
		return text, ""
	case strings.HasPrefix(text[i:], "\r\n"):
		return text[:i], text[i+2:]
	}
	return text[:i], text[i+1:]
}

// parseProperty splits NAME;PARAMETER=VALUE;PARAMETER="VALUE":VALUE.
func parseProperty(raw string, line int) property {
	p := property{line: line}
	head, quoted := len(raw), false
	for i := range len(raw) {
		if raw[i] == '"' {
			quoted = !quoted
		} else if raw[i] == ':' && !quoted {
			head, p.value, p.colon = i, strings.TrimSpace(raw[i+1:]), true
			break
		}
	}
	for i, part := range splitUnquoted(raw[:head], ';') {
		if i == 0 {
			p.name = strings.ToUpper(strings.TrimSpace(part))
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if p.parameters == nil {
			p.parameters = map[string]string{}
		}
		p.parameters[strings.ToUpper(strings.TrimSpace(name))] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	return p
}

func splitUnquoted(text string, at byte) []string {
	var parts []string
	begin, quoted := 0, false
	for i := range len(text) {
		if text[i] == '"' {
			quoted = !quoted
		} else if text[i] == at && !quoted {
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

// unescape reads a value of type TEXT (RFC 5545 section 3.3.11).
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		if text[i] == 'n' || text[i] == 'N' {
			b.WriteByte('\n')
		} else {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// splitText splits a list of TEXT values.
func splitText(value string) []string {
	var parts []string
	begin := 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case ',':
			parts = append(parts, harmless(unescape(value[begin:i])))
			begin = i + 1
		}
	}
	return append(parts, harmless(unescape(value[begin:])))
}

// maxName is how many characters of a name are kept.
const maxName = 100

// harmless is a text that can be a label of a metric and a cell of a table: valid UTF-8 on one line, without anything that does
// not show, and not long.
func harmless(text string) string {
	var b strings.Builder
	space, n := false, 0
	for _, r := range strings.ToValidUTF8(text, string(utf8.RuneError)) {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) && r != utf8.RuneError {
			space = n > 0
			continue
		}
		if n++; n > maxName {
			b.WriteRune('…')
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// isHarmless reports whether a name can be shown as it is.
func isHarmless(name string) bool {
	return utf8.ValidString(name) && !slices.ContainsFunc([]rune(name), func(r rune) bool { return !unicode.IsPrint(r) })
}
