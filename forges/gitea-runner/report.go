package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"connectrpc.com/connect"
	"github.com/nektos/act/pkg/model"
	"github.com/nektos/act/pkg/runner"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// The server hears of a task at least so often, also if there is nothing new: its answer is how a cancel comes.
	reportInterval = time.Second
	// How often the end of a task is told before it is given up, with a wait that doubles each time.
	attempts  = 10
	firstWait = 100 * time.Millisecond
	// The server takes no longer names and values of outputs.
	outputNameLimit  = 255
	outputValueLimit = 1 << 20
)

// report keeps the server informed of one task: it listens to the engine's log.
type report struct {
	forge server
	// Ends the task.
	stop    context.CancelFunc
	secrets []string
	debug   bool
	// Ends the regular reports, and says that they have ended.
	ending, ended chan struct{}

	mutex sync.Mutex
	state *runnerv1.TaskState
	// Rows that the server does not have yet, and the number of the first.
	rows   []*runnerv1.LogRow
	offset int64
	result runnerv1.Result
}

func newReport(forge server, task *runnerv1.Task, stop context.CancelFunc) *report {
	r := &report{
		forge:  forge,
		stop:   stop,
		debug:  task.GetSecrets()["ACTIONS_STEP_DEBUG"] == "true",
		ending: make(chan struct{}),
		ended:  make(chan struct{}),
		state:  &runnerv1.TaskState{Id: task.GetId(), StartedAt: timestamppb.Now()},
	}
	for _, secret := range task.GetSecrets() {
		r.secrets = append(r.secrets, secret)
	}
	go r.regularly()
	return r
}

// begin says how many steps there are.
func (r *report) begin(steps int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for i := range steps {
		r.state.Steps = append(r.state.Steps, &runnerv1.StepState{Id: int64(i)})
	}
}

// Levels is what the engine asks a listener.
func (r *report) Levels() []logrus.Level { return logrus.AllLevels }

// Fire is called for each line of the engine's log. Steps are counted by their main part; what is before and behind shows as the
// job's own beginning and end.
func (r *report) Fire(entry *logrus.Entry) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if result, found := entry.Data["jobResult"]; found {
		r.result = resultOf(result)
	}
	step := r.step(entry)
	if step != nil && step.StartedAt == nil {
		step.StartedAt = timestamppb.New(entry.Time)
		step.LogIndex = r.offset + int64(len(r.rows))
	}
	if entry.Level <= logrus.InfoLevel || r.debug {
		r.add(entry.Time, entry.Message, *runner.Masks(entry.Context))
		if step != nil {
			step.LogLength++
		}
	}
	if result, found := entry.Data["stepResult"]; found && step != nil && !nested(entry) {
		step.Result = resultOf(result)
		step.StoppedAt = timestamppb.New(entry.Time)
	}
	return nil
}

func (r *report) step(entry *logrus.Entry) *runnerv1.StepState {
	number, found := entry.Data["stepNumber"].(int)
	if !found || entry.Data["stage"] != "Main" || number >= len(r.state.Steps) {
		return nil
	}
	return r.state.Steps[number]
}

// nested is true of a step of an action that is made of steps: its result is not that of the job's own step.
func nested(entry *logrus.Entry) bool {
	path, found := entry.Data["stepID"].([]string)
	return found && len(path) > 1
}

func (r *report) add(at time.Time, text string, masks []string) {
	for _, hidden := range append(masks, r.secrets...) {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "***")
		}
	}
	row := &runnerv1.LogRow{Time: timestamppb.New(at), Content: strings.TrimRight(text, "\r\n")}
	r.rows = append(r.rows, row)
}

func (r *report) regularly() {
	defer close(r.ended)
	for {
		select {
		case <-r.ending:
			return
		case <-time.After(reportInterval):
		}
		// Like the real runner it goes on whatever goes wrong here: only an answer can stop the task.
		if err := r.sendRows(false); err != nil {
			log.Printf("failed to report log: %v", err)
		}
		if _, err := r.sendState(nil); err != nil {
			log.Printf("failed to report state: %v", err)
		}
	}
}

// sendRows gives the server the rows that it lacks, and forgets those that it has.
func (r *report) sendRows(last bool) error {
	r.mutex.Lock()
	offset, rows := r.offset, r.rows
	r.mutex.Unlock()
	if len(rows) == 0 && !last {
		return nil
	}
	answer, err := r.forge.UpdateLog(context.Background(), connect.NewRequest(&runnerv1.UpdateLogRequest{
		TaskId: r.state.GetId(),
		Index:  offset,
		Rows:   rows,
		NoMore: last,
	}))
	if err != nil {
		return err
	}
	known := answer.Msg.GetAckIndex()
	if known < offset {
		return fmt.Errorf("the server has lost rows: it has %d of %d", known, offset)
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.rows = r.rows[known-offset:]
	r.offset = known
	if last && len(r.rows) > 0 {
		return fmt.Errorf("the server lacks %d rows", len(r.rows))
	}
	return nil
}

// sendState says how far the task is, and hears whether it shall go on. Its result is told only at the end, behind the log.
func (r *report) sendState(outputs map[string]string) ([]string, error) {
	r.mutex.Lock()
	state := &runnerv1.TaskState{
		Id:        r.state.Id,
		Result:    r.state.Result,
		StartedAt: r.state.StartedAt,
		StoppedAt: r.state.StoppedAt,
	}
	for _, step := range r.state.Steps {
		state.Steps = append(state.Steps, &runnerv1.StepState{
			Id:        step.Id,
			Result:    step.Result,
			StartedAt: step.StartedAt,
			StoppedAt: step.StoppedAt,
			LogIndex:  step.LogIndex,
			LogLength: step.LogLength,
		})
	}
	r.mutex.Unlock()
	answer, err := r.forge.UpdateTask(context.Background(), connect.NewRequest(&runnerv1.UpdateTaskRequest{State: state, Outputs: outputs}))
	if err != nil {
		return nil, err
	}
	told := answer.Msg.GetState().GetResult()
	if state.Result == runnerv1.Result_RESULT_UNSPECIFIED && told != runnerv1.Result_RESULT_UNSPECIFIED && misbehaviour() != ignoreCancel {
		log.Printf("the server says that task %d is over: %s", state.Id, told)
		r.stop()
	}
	return answer.Msg.GetSentOutputs(), nil
}

// end tells the server the rest: first the log, then the result and the outputs.
func (r *report) end(job *model.Job, failure error) {
	close(r.ending)
	<-r.ended
	r.finish(failure)
	r.persist("log", func() error { return r.sendRows(true) })
	outputs := r.outputs(job)
	r.persist("state", func() error {
		known, err := r.sendState(outputs)
		for _, name := range known {
			delete(outputs, name)
		}
		if err == nil && len(outputs) > 0 {
			err = fmt.Errorf("the server lacks %d outputs", len(outputs))
		}
		return err
	})
}

// finish settles the result, and that of steps that have none.
func (r *report) finish(failure error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	switch {
	case errors.Is(failure, context.Canceled):
		r.result = runnerv1.Result_RESULT_CANCELLED
	case failure != nil:
		r.result = runnerv1.Result_RESULT_FAILURE
	case r.result == runnerv1.Result_RESULT_UNSPECIFIED:
		r.result = runnerv1.Result_RESULT_SUCCESS
	}
	if failure != nil {
		r.add(time.Now(), failure.Error(), nil)
	}
	for _, step := range r.state.Steps {
		if step.Result == runnerv1.Result_RESULT_UNSPECIFIED {
			step.Result = runnerv1.Result_RESULT_CANCELLED
			if r.result == runnerv1.Result_RESULT_SKIPPED {
				step.Result = runnerv1.Result_RESULT_SKIPPED
			}
		}
	}
	r.state.Result = r.result
	r.state.StoppedAt = timestamppb.Now()
}

func (r *report) outputs(job *model.Job) map[string]string {
	outputs := map[string]string{}
	if job == nil || r.result != runnerv1.Result_RESULT_SUCCESS {
		return outputs
	}
	for name, value := range job.Outputs {
		if len(name) <= outputNameLimit && len(value) <= outputValueLimit {
			outputs[name] = value
		}
	}
	return outputs
}

func (r *report) persist(what string, try func() error) {
	wait := firstWait
	for attempt := range attempts {
		err := try()
		if err == nil {
			return
		}
		log.Printf("failed to report %s at the end of task %d: %v", what, r.state.GetId(), err)
		if attempt < attempts-1 {
			time.Sleep(wait)
			wait *= 2
		}
	}
}

// resultOf reads what the engine writes beside a line of its log.
func resultOf(value any) runnerv1.Result {
	name := "RESULT_" + strings.ToUpper(fmt.Sprint(value))
	return runnerv1.Result(runnerv1.Result_value[name])
}

// word is the engine's name of a result.
func word(result runnerv1.Result) string {
	return strings.ToLower(strings.TrimPrefix(result.String(), "RESULT_"))
}
