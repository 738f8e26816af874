// gitleaks is the scanner of the demonstration: https://github.com/gitleaks/gitleaks, as its own module builds it.
package main

import "github.com/zricethezav/gitleaks/v8/cmd"

func main() { cmd.Execute() }
