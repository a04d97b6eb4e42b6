from __future__ import annotations
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
import pytest
from django.utils import timezone
from automate_django import definitions
from automate_django.models import WorkflowExecution, WorkflowStep
from automate_kernel.errors import AutomateError, ErrorCodes

EX = "/admin/automate_django/workflowexecution/"
WF = "/admin/automate_django/workflowdocument/"
ORDER = """\
name: order-fulfilment
title: From payment to parcel
trigger: {type: event, event: order.paid}
steps:
  - id: reserve
    name: Reserve the stock
    action: stock.reserve
    for_each: "{{ event.payload.lines }}"
    concurrency: 4
    input: {sku: "{{ item.sku }}"}
  - id: invoice
    action: billing.invoice
    needs: []
    retry: {attempts: 4, delay: 10s}
  - id: label
    action: carrier.label
    needs: [reserve]
    timeout: 30s
  - id: pack
    action: warehouse.pack
    needs: [reserve]
  - id: notify
    action: chat.post_message
    needs: [label, pack, invoice]
    input: {channel: C1, text: "Sent {{ event.payload.number }} to {{ event.payload.customer.name }}"}
on_failure:
  - {id: refund, action: billing.refund}
output: {parcel: "{{ steps.label.output }}"}
"""
def step(ex, sid, a, b, status="COMPLETED", pos=-1, attempts=1, **k):
    t0 = ex.created_at
    WorkflowStep.objects.create(id=uuid4(), execution=ex, step_id=sid, position=pos, status=status, attempts=attempts,
        started_at=None if a is None else t0+timedelta(seconds=a), completed_at=None if b is None else t0+timedelta(seconds=b), **k)

def seed(kernel):
    doc = definitions.create(ORDER, author="ann", comment="First version")
    definitions.save(doc, ORDER.replace("attempts: 4", "attempts: 6").replace("C1", "C-warehouse"), author="bob", comment="Billing is slow in the evening; tell the warehouse")
    definitions.create("name: nightly-report\ntrigger: {type: schedule, cron: '0 3 * * *', timezone: Europe/Berlin}\nsteps:\n  - {id: build, action: report.build}\n", enabled=False)
    definitions.create("name: welcome\ntrigger: {type: event, event: customer.came}\nsteps:\n  - {id: say, action: chat.post_message, input: {channel: C1, text: Hi}}\n", tenant_id="acme")
    now = timezone.now()
    from automate_django.models import WorkflowDefinition
    wf = definitions.checked(doc.versions.get(number=2).source, "yaml", kernel)
    WorkflowDefinition.objects.create(id=wf.hash(), name=wf.name, body=wf.to_dict(), created_at=now)
    def ex(status, ago, dur=None, **k):
        return WorkflowExecution.objects.create(id=uuid4(), workflow="order-fulfilment", definition_id=wf.hash(), status=status,
          event={"id":"e1","name":"order.paid","type":"event","source":"shop","occurred_at":now.isoformat(),"payload":{"number":"A-1009","customer":{"name":"Ann <b>Fischer</b>","api_key":"sk-1"},"lines":[{"sku":f"sku-{n}","price":12.5} for n in range(6)]}},
          item_id=uuid4(), created_at=now-timedelta(seconds=ago), updated_at=now, completed_at=None if dur is None else now-timedelta(seconds=ago-dur), **k)
    for i in range(40):
        ex("COMPLETED", 3600+i*300, 14.2+i, output={"parcel":"DHL 123"}, tenant_id="acme" if i%3 else None)
    done = ex("COMPLETED", 300, 42.0, output={"parcel":"DHL 00340434161094022115"})
    for p in range(6): step(done, "reserve", 0.5+p*1.5, 4+p*1.6, pos=p, output={"ok":True})
    step(done,"reserve",None,12.0)
    step(done,"invoice",0.5,28,attempts=3,output={"invoice":"2026-1009","total":75.0})
    step(done,"label",12.2,15.5,output="DHL 00340434161094022115"); step(done,"pack",12.2,38); step(done,"notify",38.2,41.9,output={"id":7})
    bad = ex("FAILED", 900, 33.0, error_code="UNAVAILABLE", error="step 'label' failed: carrier.label: ConnectTimeout: no answer from api.carrier.example within 30 s", tenant_id="acme")
    for p in range(6): step(bad, "reserve", 0.5+p, 2+p, pos=p)
    step(bad,"reserve",None,7.2); step(bad,"invoice",0.5,5,output={})
    step(bad,"label",7.3,32.8,status="FAILED",attempts=2,error_code="UNAVAILABLE",error="action 'carrier.label': ConnectTimeout: no answer from api.carrier.example within 30 s",trace='  File "/srv/shop/carrier.py", line 41, in label\n    answer = self.http.post("/labels", json=parcel)\n  File "/srv/venv/httpx/_client.py", line 1144, in post\n    return self.request("POST", url)\n')
    step(bad,"pack",7.3,20); step(bad,"refund",32.9,33.0)
    run = ex("RUNNING", 20)
    for p in range(3): step(run, "reserve", 0.5+p*2, 3+p*2, pos=p)
    step(run,"reserve",9,None,status="RUNNING",pos=3)
    step(run,"invoice",0.5,None,status="RETRY",attempts=2,error_code="UNAVAILABLE",error="billing.invoice: 503 from the billing service",next_attempt_at=now+timedelta(seconds=25))
    for i in range(3): ex("FAILED", 86400*2+i*777, 3.0, error_code="INVALID_ARGUMENT", error="step 'reserve' failed: element 2: sku is unknown")
    return doc, done, bad, run

@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_shots(kernel, operator, look):
    doc, done, bad, run = seed(kernel)
    options = {"color_scheme": "dark" if look == "dark" else "light"}
    options["viewport"] = {"width": 390, "height": 844} if look == "phone" else {"width": 1280, "height": 860}
    one = operator(**options)
    shots = Path("/tmp/shots")
    pages = {"executions": EX, "done": f"{EX}{done.pk}/change/", "failed": f"{EX}{bad.pk}/change/", "running": f"{EX}{run.pk}/change/",
      "step": f"{EX}{bad.pk}/steps/label/", "workflows": WF, "workflow": f"{WF}{doc.pk}/", "version": f"{WF}{doc.pk}/versions/1/", "edit": f"{WF}{doc.pk}/change/"}
    for name, path in pages.items():
        page = one.open(path)
        page.wait_for_timeout(200)
        if name == "edit":
            page.fill("textarea", page.input_value("textarea").replace("action: billing.invoice","acton: billing.invoice").replace("30s","30 sec"))
            page.click("text=Save")
        page.screenshot(path=shots / f"d4-{name}-{look}.png", full_page=True)
        w = page.evaluate("document.documentElement.scrollWidth")
        print(look, name, w)
    print(one.complaints)
