// The workloads in Go: a goroutine for each connection or waiter.
//
//	go serve echo|work    // answers the clients of the listener, which is the standard input
//	go serve http         // the same by net/http
//	go parked COUNT       // prints the resident bytes of each parked goroutine
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// The steps of the work for a request, as in src/servers.rs.
const steps = 40_000

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		err = serve(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "parked":
		err = parked(os.Args[2])
	default:
		err = fmt.Errorf("usage: go serve echo|work|http, or go parked COUNT")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(service string) error {
	listener, err := net.FileListener(os.Stdin)
	if err != nil {
		return err
	}
	if service == "http" {
		answer := func(writer http.ResponseWriter, _ *http.Request) { writer.Write([]byte("Hello, world!")) }
		return http.Serve(listener, http.HandlerFunc(answer))
	}
	for {
		stream, err := listener.Accept()
		if err != nil {
			return err
		}
		go answerAll(stream, service == "work")
	}
}

func answerAll(stream net.Conn, withWork bool) {
	defer stream.Close()
	buffer := make([]byte, 1024)
	for {
		count, err := stream.Read(buffer)
		if err != nil {
			return
		}
		if withWork && work() == 0 {
			return
		}
		if _, err = stream.Write(buffer[:count]); err != nil {
			return
		}
	}
}

//go:noinline
func work() uint64 {
	number := uint64(1)
	for step := 0; step < steps; step++ {
		number ^= number << 13
		number ^= number >> 7
		number ^= number << 17
	}
	return number
}

func parked(count string) error {
	number, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	before, err := residentBytes()
	if err != nil {
		return err
	}
	gate, all := make(chan struct{}), make(chan struct{}, 1024)
	for index := 0; index < number; index++ {
		go func() {
			all <- struct{}{}
			<-gate
		}()
	}
	for index := 0; index < number; index++ {
		<-all
	}
	runtime.Gosched()
	after, err := residentBytes()
	if err != nil {
		return err
	}
	fmt.Println(float64(after-before) / float64(number))
	return nil
}

func residentBytes() (int, error) {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	return pages * os.Getpagesize(), err
}
