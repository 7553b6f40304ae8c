package main

import (
	"context"
	"net/http"
	"strings"

	"code.gitea.io/actions-proto-go/ping/v1/pingv1connect"
	"code.gitea.io/actions-proto-go/runner/v1/runnerv1connect"
	"connectrpc.com/connect"
)

// server is the forge, as a runner sees it.
type server struct {
	pingv1connect.PingServiceClient
	runnerv1connect.RunnerServiceClient
}

// connectTo speaks to the server at an address as a runner, or as nobody yet.
func connectTo(address string, runner *identity) server {
	base := strings.TrimRight(address, "/") + "/api/actions"
	who := connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			request.Header().Set("User-Agent", "gitea-runner/"+version)
			if runner != nil {
				request.Header().Set("x-runner-uuid", runner.UUID)
				request.Header().Set("x-runner-token", runner.Token)
			}
			return next(ctx, request)
		}
	}))
	return server{
		pingv1connect.NewPingServiceClient(http.DefaultClient, base, who),
		runnerv1connect.NewRunnerServiceClient(http.DefaultClient, base, who),
	}
}
