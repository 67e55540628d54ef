// The driver of River: client and worker in this process, as its documentation shows them.
// It runs one phase and prints one line of JSON, like the drivers in ../node: see ../README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Task is the payload: 200 bytes as JSON.
type Task struct {
	ID   string `json:"id"`
	Fill string `json:"fill"`
}

// Kind names the job.
func (Task) Kind() string { return "task" }

type worker struct {
	river.WorkerDefaults[Task]
	ledger *ledger
}

func (w *worker) Work(_ context.Context, job *river.Job[Task]) error {
	w.ledger.enter(job.Args.ID)
	return nil
}

type session struct {
	pool    *pgxpool.Pool
	ledger  *ledger
	variant string
	client  *river.Client[pgx.Tx] // inserts
	workers []*river.Client[pgx.Tx]
	done    <-chan *river.Event
}

func (s *session) config(slots int) *river.Config {
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{ledger: s.ledger})
	config := &river.Config{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: slots}},
		Workers: workers,
	}
	s.tune(config)
	return config
}

// tune sets the shortest that it takes: its documentation says that throughput is limited by this, and an inserting
// client sends no more notifications than that either.
func (s *session) tune(config *river.Config) {
	config.FetchCooldown = s.cooldown()
	if s.variant == "tuned" {
		config.FetchPollInterval = 20 * time.Millisecond
	}
}

func (s *session) cooldown() time.Duration {
	if s.variant == "tuned" {
		return river.FetchCooldownMin
	}
	return river.FetchCooldownDefault
}

func (s *session) work(ctx context.Context, slots int) error {
	client, err := river.NewClient(riverpgxv5.New(s.pool), s.config(slots))
	if err != nil {
		return err
	}
	s.done, _ = client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: 100_000, Kinds: []river.EventKind{river.EventKindJobCompleted},
	})
	s.workers = append(s.workers, client)
	return client.Start(ctx)
}

func (s *session) trigger(ctx context.Context, task Task) error {
	_, err := s.client.Insert(ctx, task, nil)
	return err
}

func (s *session) bulk(ctx context.Context, tasks []Task) error {
	params := make([]river.InsertManyParams, len(tasks))
	for i, task := range tasks {
		params[i] = river.InsertManyParams{Args: task}
	}
	_, err := s.client.InsertManyFast(ctx, params)
	return err
}

func open(ctx context.Context) (*session, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("PEER_URL"))
	if err != nil {
		return nil, err
	}
	config.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	s := &session{pool: pool, ledger: newLedger(), variant: os.Getenv("PEER_VARIANT")}
	inserting := &river.Config{}
	s.tune(inserting)
	s.client, err = river.NewClient(riverpgxv5.New(pool), inserting)
	return s, err
}

func (s *session) close(ctx context.Context) error {
	for _, client := range s.workers {
		if err := client.Stop(ctx); err != nil {
			return err
		}
	}
	s.pool.Close()
	return nil
}

func (s *session) setup(ctx context.Context) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(s.pool), nil)
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func number(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(number("PEER_TIMEOUT"))*time.Second)
	defer cancel()
	s, err := open(ctx)
	if err != nil {
		return err
	}
	figures, err := s.phase(ctx, os.Args[1:])
	if err != nil {
		return err
	}
	if err := s.close(ctx); err != nil {
		return err
	}
	s.ledger.verdict(figures)
	return json.NewEncoder(os.Stdout).Encode(figures)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
