// Package secret takes a program's credentials out of its environment before anything else runs, so that no program of the same user
// finds them in /proc.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// descriptorVariable tells the program that replaced itself where the credentials are.
const descriptorVariable = "EBBTIDE_SECRETS_FD"

// Values are credentials by the names of the environment variables that held them.
type Values map[string]string

// Take returns the environment variables of these names, which are in the environment no more afterwards, and makes the process one that
// others of its user can't look into. Changing the environment would leave them in the block that the kernel shows, so the program
// replaces itself with one that gets them by a file in memory. Call it before anything else: it starts the program again.
func Take(names ...string) (Values, error) {
	if number := os.Getenv(descriptorVariable); number != "" {
		if err := os.Unsetenv(descriptorVariable); err != nil {
			return nil, err
		}
		values, err := receive(number)
		if err != nil {
			return nil, fmt.Errorf("read the credentials: %w", err)
		}
		return values, conceal()
	}
	var secrets, rest []string
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); slices.Contains(names, name) {
			secrets = append(secrets, variable)
		} else {
			rest = append(rest, variable)
		}
	}
	if len(secrets) == 0 {
		return Values{}, conceal()
	}
	return nil, fmt.Errorf("restart without credentials in the environment: %w", again(secrets, rest))
}

// again replaces the program by itself with another environment. It returns only if it can't.
func again(secrets, environment []string) error {
	fd, err := unix.MemfdCreate("secrets", 0) // the program that comes inherits it
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, []byte(strings.Join(secrets, "\x00")), 0); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(environment, descriptorVariable+"="+strconv.Itoa(fd)))
}

func receive(number string) (Values, error) {
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, errors.New("$" + descriptorVariable + " is not this program's")
	}
	file := os.NewFile(uintptr(fd), "secrets")
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	values := Values{}
	for variable := range strings.SplitSeq(string(text), "\x00") {
		name, value, _ := strings.Cut(variable, "=")
		values[name] = value
	}
	return values, nil
}

// conceal keeps others of the same user from tracing this process, and from its files in /proc, and what it starts from files that it has inherited: a
// shell or a supervisor may have left some open.
func conceal() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("close what was inherited to others: %w", err)
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close /proc to others: %w", err)
	}
	return nil
}
