package sourcestore

import (
	"fmt"
	"strconv"
	"strings"
)

// CommandEnvironment is the environment of a command that runs in a checkout: that of a process, with a setting for each git that it starts. A folder
// of the checkout that looks like a bare repository, with a configuration that runs programs, is none: git takes only one that it is told of.
func CommandEnvironment(own []string) []string {
	const count = "GIT_CONFIG_COUNT="
	var env []string
	n := 0
	for _, variable := range own {
		if number, ok := strings.CutPrefix(variable, count); ok {
			n, _ = strconv.Atoi(number) // git refuses what is no number anyway
		} else {
			env = append(env, variable)
		}
	}
	return append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=safe.bareRepository", n), fmt.Sprintf("GIT_CONFIG_VALUE_%d=explicit", n), count+strconv.Itoa(n+1))
}
