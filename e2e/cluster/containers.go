package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// TaskEvent is the start or the end of a container's first process, by containerd's clock; sandboxes of pods are containers too.
type TaskEvent struct {
	Node, Container string
	Ended           bool
	At              time.Time
}

// WatchTasks calls record, by one goroutine for each node, for what happens from then on until ctx ends.
func (c *Cluster) WatchTasks(ctx context.Context, record func(TaskEvent)) error {
	for _, node := range c.nodes {
		cmd := exec.CommandContext(ctx, "ctr", "--address", node.socket, "--namespace", "k8s.io", "events")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("watch the containers of %s: %w", node.name, err)
		}
		go func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if event, ok := parseTaskEvent(lines.Text()); ok {
					event.Node = node.name
					record(event)
				}
			}
			_ = cmd.Wait() // killed
		}()
	}
	return nil
}

// parseTaskEvent reads a line such as
//
//	2026-03-02 09:00:00.123456789 +0000 UTC k8s.io /tasks/start {"container_id":"6f1c","pid":42}
func parseTaskEvent(line string) (TaskEvent, bool) {
	fields := strings.SplitN(line, " ", 7)
	if len(fields) < 7 || fields[5] != "/tasks/start" && fields[5] != "/tasks/exit" {
		return TaskEvent{}, false
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700", strings.Join(fields[:3], " "))
	var what struct {
		Container string `json:"container_id"`
		// ID of what ended: the container's first process has the container's.
		ID string `json:"id"`
	}
	if err != nil || json.Unmarshal([]byte(fields[6]), &what) != nil {
		return TaskEvent{}, false
	}
	ended := fields[5] == "/tasks/exit"
	return TaskEvent{Container: what.Container, Ended: ended, At: at}, !ended || what.ID == what.Container
}
