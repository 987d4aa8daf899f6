// Data that the checks read, pinned by go.sum; nothing here is built, so `go mod tidy` would drop it. To raise one:
// `go get <module>@latest`, then `make supply-chain`.
module mlperf.dev/hack/lint-tools/data

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0 // indirect
	golang.org/x/vulndb v0.0.0-20261105234957-e22db6528018 // indirect
)
