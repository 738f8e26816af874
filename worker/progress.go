package worker

import (
	"bytes"
	"log/slog"
	"strings"
)

// maxLineBytes is how much of a line of standard error is passed on at once.
const maxLineBytes = 8 << 10

// progress passes what a command says on standard error on to the log, line by line, each with the message's key.
type progress struct {
	log  *slog.Logger
	line []byte
}

// Write implements io.Writer.
func (p *progress) Write(text []byte) (int, error) {
	size := len(text)
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		whole := end >= 0
		if !whole {
			end = len(text)
		}
		end = min(end, maxLineBytes-len(p.line))
		p.line = append(p.line, text[:end]...)
		text = text[end:]
		if len(text) > 0 && text[0] == '\n' {
			text = text[1:]
		} else if len(p.line) < maxLineBytes {
			break // more of it comes
		}
		p.flush()
	}
	return size, nil
}

// flush passes on what is left of a line.
func (p *progress) flush() {
	if line := strings.TrimRight(strings.ToValidUTF8(string(p.line), "?"), "\r"); line != "" {
		p.log.Info("scan says", "line", line)
	}
	p.line = p.line[:0]
}
