package worker

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// endingVariable names the file in which a command that only calls another, in another container, says how that one ended. An exit code
// has no room for it. What is in the file is the command's word, as its exit code is.
const endingVariable = "EBBTIDE_ENDING_FILE"

// Ending is how a command ended that runs in another container.
type Ending struct {
	// Memory says, for people, that it was killed because it ran out of memory; empty: it was not.
	Memory string `json:"memory,omitempty"`
	// Scratch says that it was ended for what it had in its temporary folders, for a person; empty: it was not.
	Scratch string `json:"scratch,omitempty"`
	// Signal that ended it; 0: none did.
	Signal int `json:"signal,omitempty"`
}

// Report tells the worker whose command this process is. Without a worker it tells nobody.
func (e Ending) Report() error {
	path := os.Getenv(endingVariable)
	if path == "" {
		return nil
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// readEnding reads what a command reported. Whatever else is there counts for nothing.
func readEnding(path string) (e Ending) {
	const most = 4 << 10
	if path == "" {
		return e
	}
	// A command may put anything there, a pipe or a link too.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return e
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return e
	}
	text, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil || json.Unmarshal(text, &e) != nil {
		return Ending{}
	}
	e.Signal = min(max(e.Signal, 0), 64)
	return e
}
