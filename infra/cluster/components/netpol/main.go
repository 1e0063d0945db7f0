// netpol enforces NetworkPolicy on one node with kube-router's policy controller
// (iptables and ipset), without its router and service proxy.
package main

import (
	"flag"
	"maps"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/svcip"
	"github.com/spf13/pflag"
	core "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

func must(err error) {
	if err != nil {
		klog.Fatal(err)
	}
}

// Whether an update changes the rules. Those of a pod depend on its labels, its address, and whether it has ended, but
// not on its readiness, which changes more often.
func matters(before, after any) bool {
	old, isPod := before.(*core.Pod)
	if !isPod {
		return true
	}
	pod := after.(*core.Pod)
	return old.Status.PodIP != pod.Status.PodIP || old.Status.Phase != pod.Status.Phase ||
		!maps.Equal(old.Labels, pod.Labels)
}

// The controller's own event handlers request a sync, which runs dozens of programs, for each event of each pod on every
// node. These request one at once, and then at most one a second.
func handlers(request func()) cache.ResourceEventHandler {
	changed := make(chan struct{}, 1)
	mark := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	go func() {
		for range changed {
			request()
			time.Sleep(time.Second)
		}
	}()
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { mark() },
		UpdateFunc: func(before, after any) {
			if matters(before, after) {
				mark()
			}
		},
		DeleteFunc: func(any) { mark() },
	}
}

func main() {
	klog.InitFlags(nil)
	c := options.NewKubeRouterConfig()
	c.AddFlags(pflag.CommandLine)
	pflag.Parse()
	must(flag.CommandLine.Parse(nil))

	rest, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	must(err)
	client, err := kubernetes.NewForConfig(rest)
	must(err)

	stop := make(chan struct{})
	f := informers.NewSharedInformerFactory(client, 0)
	pods := f.Core().V1().Pods().Informer()
	spaces := f.Core().V1().Namespaces().Informer()
	policies := f.Networking().V1().NetworkPolicies().Informer()
	f.Start(stop)
	f.WaitForCacheSync(stop)

	ips, err := svcip.NewValidator(svcip.Config{
		ClusterIPCIDRs: c.ClusterIPCIDRs, EnableIPv4: c.EnableIPv4, EnableIPv6: c.EnableIPv6,
	})
	must(err)
	tables, sets, err := netpol.NewIPTablesHandlers(c)
	must(err)
	var mu sync.Mutex
	npc, err := netpol.NewNetworkPolicyController(client, c, pods, policies, spaces, &mu, nil, tables, sets, ips)
	must(err)
	handler := handlers(npc.RequestFullSync)
	for _, i := range []cache.SharedIndexInformer{pods, spaces, policies} {
		_, err = i.AddEventHandler(handler)
		must(err)
	}

	beats := make(chan *healthcheck.ControllerHeartbeat, 10)
	go func() {
		for range beats {
		}
	}()
	var wg sync.WaitGroup
	wg.Add(1)
	go npc.Run(beats, stop, &wg)

	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGINT, syscall.SIGTERM)
	<-sig
	close(stop)
	wg.Wait()
}
