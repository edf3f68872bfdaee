// Command agent stands in for bailey-agent in engine tests: it answers the
// DIAL line on its socket, serves "hello NAME" on Jupyter's address and an echo
// on a Unix socket, and ends the way a test tells it to by signal.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const echoPath = "/tmp/echo.sock"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var cfg struct {
		Socket  string `json:"socket"`
		User    string `json:"user"`
		Jupyter struct {
			Addr      string `json:"addr"`
			TokenFile string `json:"token_file"`
		} `json:"jupyter"`
	}
	text, err := os.ReadFile(os.Args[len(os.Args)-1])
	if err == nil {
		err = json.Unmarshal(text, &cfg)
	}
	if err != nil {
		return err
	}
	token, err := os.ReadFile(cfg.Jupyter.TokenFile)
	if err != nil || len(token) == 0 {
		return fmt.Errorf("no token: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCHLD)
	web, err := net.Listen("tcp", cfg.Jupyter.Addr)
	if err != nil {
		return err
	}
	go http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello", cfg.User) }))
	echo, err := net.Listen("unix", echoPath)
	if err != nil {
		return err
	}
	go serve(echo, func(c *net.UnixConn) { io.Copy(c, c) })
	os.Remove(cfg.Socket)
	door, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return err
	}
	go serve(door, answer)
	fmt.Println("agent ready")
	for sig := range signals {
		switch sig {
		case syscall.SIGTERM:
			return nil
		case syscall.SIGUSR1:
			os.Exit(3)
		case syscall.SIGUSR2:
			os.Exit(1)
		case syscall.SIGCHLD:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
					break
				}
			}
		}
	}
	return nil
}

func serve(l net.Listener, f func(*net.UnixConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			f(c.(*net.UnixConn))
		}()
	}
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// answer carries one connection.
func answer(c *net.UnixConn) {
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 3 || words[0] != "DIAL" {
		return
	}
	to, err := net.Dial(words[1], words[2])
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, in)
		to.(halfCloser).CloseWrite()
	}()
	io.Copy(c, to)
}
