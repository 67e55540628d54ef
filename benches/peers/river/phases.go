package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ledger holds what was accepted, and how often each task function was entered.
type ledger struct {
	mutex    sync.Mutex
	accepted map[string]bool
	entered  map[string]int
	waiting  map[string]chan time.Time
	last     time.Time
	executed atomic.Int64
	next     atomic.Int64
}

type figures map[string]any

func newLedger() *ledger {
	return &ledger{accepted: map[string]bool{}, entered: map[string]int{}, waiting: map[string]chan time.Time{}}
}

func (l *ledger) task() Task {
	task := Task{ID: fmt.Sprintf("%d-%d", os.Getpid(), l.next.Add(1))}
	bare, _ := json.Marshal(task)
	task.Fill = strings.Repeat("x", 200-len(bare))
	return task
}

func (l *ledger) enter(id string) {
	now := time.Now()
	l.executed.Add(1)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.last = now
	l.entered[id]++
	if waiting, ok := l.waiting[id]; ok {
		waiting <- now
		delete(l.waiting, id)
	}
}

func (l *ledger) wait(id string) <-chan time.Time {
	waiting := make(chan time.Time, 1)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.waiting[id] = waiting
	return waiting
}

func (l *ledger) accept(tasks ...Task) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, task := range tasks {
		l.accepted[task.ID] = true
	}
}

func (l *ledger) all(limit time.Duration) {
	complete := func() bool {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		return len(l.entered) >= len(l.accepted)
	}
	for end := time.Now().Add(limit); !complete() && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	// A second execution would come now.
	time.Sleep(100 * time.Millisecond)
}

func (l *ledger) verdict(figures figures) {
	missing, twice, foreign := 0, 0, 0
	for id := range l.accepted {
		if l.entered[id] == 0 {
			missing++
		}
	}
	for id, times := range l.entered {
		if times > 1 {
			twice++
		}
		if !l.accepted[id] {
			foreign++
		}
	}
	figures["accepted"], figures["executed"] = len(l.accepted), l.executed.Load()
	figures["missing"], figures["twice"], figures["foreign"] = missing, twice, foreign
}

func percentiles(samples []time.Duration) figures {
	if len(samples) == 0 {
		return figures{"samples": 0}
	}
	slices.Sort(samples)
	at := func(share float64) float64 {
		return samples[min(len(samples)-1, int(float64(len(samples))*share))].Seconds() * 1000
	}
	return figures{"samples": len(samples), "p50_ms": at(0.5), "p99_ms": at(0.99)}
}

func (s *session) phase(ctx context.Context, args []string) (figures, error) {
	window := time.Duration(number("PEER_SECONDS")) * time.Second
	switch args[0] {
	case "setup":
		return figures{}, s.setup(ctx)
	case "start", "round-trip":
		return s.single(ctx, window, args[0] == "round-trip")
	case "throughput":
		clients, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, err
		}
		return s.throughput(ctx, window, clients)
	case "drain":
		return s.drain(ctx, number("PEER_BACKLOG"))
	case "one-slot":
		return s.oneSlot(ctx, window)
	}
	return nil, fmt.Errorf("no phase %s", args[0])
}

// single sends one task at a time. A round trip ends with the event that says that the completion is stored.
func (s *session) single(ctx context.Context, window time.Duration, stored bool) (figures, error) {
	if err := s.work(ctx, 100); err != nil {
		return nil, err
	}
	from := time.Now().Add(time.Second)
	end := from.Add(window)
	if !stored {
		go s.discard()
	}
	var samples []time.Duration
	for time.Now().Before(end) {
		task := s.ledger.task()
		entered := s.ledger.wait(task.ID)
		begin := time.Now()
		if err := s.trigger(ctx, task); err != nil {
			return nil, err
		}
		s.ledger.accept(task)
		at := <-entered
		if stored {
			<-s.done
			at = time.Now()
		}
		if begin.After(from) {
			samples = append(samples, at.Sub(begin))
		}
		// The next begins when it may be fetched at once.
		time.Sleep(s.cooldown() + time.Duration(rand.Int64N(int64(2*time.Millisecond))))
	}
	s.ledger.all(30 * time.Second)
	return percentiles(samples), nil
}

// throughput has clients that each have one task underway.
func (s *session) throughput(ctx context.Context, window time.Duration, clients int) (figures, error) {
	if err := s.work(ctx, 100); err != nil {
		return nil, err
	}
	go s.discard()
	end := time.Now().Add(window + time.Second)
	failed := make(chan error, clients)
	for range clients {
		go func() {
			var err error
			for err == nil && time.Now().Before(end) {
				task := s.ledger.task()
				entered := s.ledger.wait(task.ID)
				if err = s.trigger(ctx, task); err == nil {
					s.ledger.accept(task)
					<-entered
				}
			}
			failed <- err
		}()
	}
	perSecond := s.rate(window)
	for range clients {
		if err := <-failed; err != nil {
			return nil, err
		}
	}
	s.ledger.all(30 * time.Second)
	return figures{"per_second": perSecond}, nil
}

// rate counts what is executed in a window after a second of warming up.
func (s *session) rate(window time.Duration) float64 {
	time.Sleep(time.Second)
	before, begin := s.ledger.executed.Load(), time.Now()
	time.Sleep(window)
	return float64(s.ledger.executed.Load()-before) / time.Since(begin).Seconds()
}

func (s *session) discard() {
	for range s.done {
	}
}

func (s *session) fill(ctx context.Context, count int) error {
	for done := 0; done < count; {
		tasks := make([]Task, min(1000, count-done))
		for i := range tasks {
			tasks[i] = s.ledger.task()
		}
		if err := s.bulk(ctx, tasks); err != nil {
			return err
		}
		s.ledger.accept(tasks...)
		done += len(tasks)
	}
	return nil
}

func (s *session) drain(ctx context.Context, backlog int) (figures, error) {
	begin := time.Now()
	if err := s.fill(ctx, backlog); err != nil {
		return nil, err
	}
	filled := float64(backlog) / time.Since(begin).Seconds()
	begin = time.Now()
	if err := s.work(ctx, 100); err != nil {
		return nil, err
	}
	go s.discard()
	s.ledger.all(120 * time.Second)
	return figures{"per_second": float64(backlog) / s.ledger.last.Sub(begin).Seconds(), "filled_per_second": filled}, nil
}

func (s *session) oneSlot(ctx context.Context, window time.Duration) (figures, error) {
	if err := s.fill(ctx, int((window+time.Second).Seconds())*2000); err != nil {
		return nil, err
	}
	if err := s.work(ctx, 1); err != nil {
		return nil, err
	}
	go s.discard()
	perSecond := s.rate(window)
	if err := s.workers[0].Stop(ctx); err != nil {
		return nil, err
	}
	s.workers = nil
	if err := s.work(ctx, 100); err != nil {
		return nil, err
	}
	go s.discard()
	s.ledger.all(120 * time.Second)
	return figures{"per_second": perSecond, "emptied": false}, nil
}
