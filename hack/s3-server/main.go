// Command s3-server keeps buckets of a real S3 server, Versity's gateway, in a folder of this machine. For tests.
package main

import (
	"log"
	"os"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: s3-server ADDRESS FOLDER METADATA_FOLDER; the keys are those of the environment")
	}
	address, folder, metadata := os.Args[1], os.Args[2], os.Args[3]
	access, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	sideCar, err := meta.NewSideCar(metadata)
	if err != nil {
		log.Fatal(err)
	}
	// Beside the objects, not in their extended attributes, which not every file system has.
	store, err := posix.New(folder, sideCar, posix.PosixOpts{SideCarDir: metadata})
	if err != nil {
		log.Fatal(err)
	}
	root := auth.Account{Access: access, Secret: secret, Role: auth.RoleAdmin}
	server, err := s3api.New(store, middlewares.RootUserConfig{Access: access, Secret: secret}, "us-east-1",
		auth.NewIAMServiceSingle(root), nil, nil, nil, nil, s3api.WithQuiet(), s3api.WithHealth("/health"), s3api.WithKeepAlive(),
		s3api.WithConcurrencyLimiter(256, 256))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.ServeMultiPort([]string{address}))
}
